package namespace

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/freshet-io/freshet"
)

// Policy is what is set at a path, for it and what lies below it. As a command it
// sets the sync interval of the path and leaves the rest of what is set there;
// as a row, and in Bootstrap, it is all that is set there. The sync interval has
// fields of its own, for it was all there was in the first states.
type Policy struct {
	Path     freshet.Path     `codec:"p"`
	Interval freshet.Interval `codec:"i"`
	Origin   string           `codec:"o"`
	SetAt    time.Time        `codec:"t"`
	// Bare: no sync interval is set here, whatever the fields above say.
	Bare     bool            `codec:"b,omitempty"`
	Settings []PolicySetting `codec:"s,omitempty"` // in order of their properties
}

// PolicySetting is the value of a property other than the sync interval, in
// canonical text.
type PolicySetting struct {
	Property freshet.Property `codec:"p"`
	Value    string           `codec:"v"`
	Origin   string           `codec:"o"`
	SetAt    time.Time        `codec:"t"`
}

// RemovePolicy removes the sync interval of exactly that path; KindNotExist if
// none is set there.
type RemovePolicy struct {
	Path freshet.Path `codec:"p"`
}

// ChangePolicy changes what is set at a path. KindNotExist if a property of Unset
// is not set there, or if nothing is and nothing is to be.
type ChangePolicy struct {
	Path    freshet.Path       `codec:"p"`
	Set     []PolicySetting    `codec:"s"`
	Unset   []freshet.Property `codec:"u,omitempty"`
	Replace bool               `codec:"r,omitempty"` // remove what Set does not name
}

// Effective is what applies to a path besides its sync interval.
type Effective struct {
	// Level is that of the mount or of the policy of the longest prefix that is not
	// above the mount: another storage has a level of its own.
	Level  freshet.Level
	Write  freshet.WriteType // of writes that name none
	TTL    freshet.Interval  // Never if nothing is to be freed
	Pinned bool
	// BlockSize is that of versions of files which are made from now on, in bytes; 0 is
	// freshet.DefaultBlockSize.
	BlockSize int64
	// Copies bounds the live copies of cached blocks.
	Copies freshet.Replication
	// Replicas is on how many nodes a file that stays on nodes is durable when it is
	// acknowledged; 0 is 1.
	Replicas int
}

// rules are a policy as resolve needs it.
type rules struct {
	path   freshet.Path
	origin string // of the interval

	interval, ttl freshet.Interval
	level         freshet.Level
	write         freshet.WriteType
	pinned        bool
	blockSize     int64 // bytes; 0: not set
	copies        freshet.Replication
	replicas      int // 0: not set

	hasInterval, hasLevel, hasWrite, hasTTL, hasPinned, hasMin, hasMax bool
}

// over lays what the policy sets over what was found above it.
func (s *rules) over(r *resolved) {
	if s.hasInterval {
		r.interval, r.rule = s.interval, Rule{Path: s.path, Origin: s.origin}
	}
	if s.hasLevel {
		r.policy.Level = s.level
	}
	if s.hasWrite {
		r.policy.Write = s.write
	}
	if s.hasTTL {
		r.policy.TTL = s.ttl
	}
	if s.hasPinned {
		r.policy.Pinned = s.pinned
	}
	if s.blockSize != 0 {
		r.policy.BlockSize = s.blockSize
	}
	if s.replicas != 0 {
		r.policy.Replicas = s.replicas
	}
	if s.hasMin {
		r.policy.Copies.Min = s.copies.Min
	}
	if s.hasMax {
		r.policy.Copies.Max = s.copies.Max
	}
}

// rulesOf makes a policy ready for use. A value of a newer release that this one
// can't read sets nothing.
func rulesOf(p *Policy) *rules {
	s := &rules{path: p.Path}
	if !p.Bare {
		s.hasInterval, s.interval, s.origin = true, p.Interval, p.Origin
	}
	for _, set := range p.Settings {
		switch set.Property {
		case freshet.PropertyConsistency:
			v, err := freshet.ParseLevel(set.Value)
			s.level, s.hasLevel = v, err == nil
		case freshet.PropertyWriteType:
			v, err := freshet.ParseWriteType(set.Value)
			s.write, s.hasWrite = v, err == nil && v != freshet.ByPolicy
		case freshet.PropertyTTL:
			v, err := freshet.ParseInterval(set.Value)
			s.ttl, s.hasTTL = v, err == nil
		case freshet.PropertyPinned:
			s.pinned, s.hasPinned = set.Value == "true", true
		case freshet.PropertyBlockSize:
			s.blockSize, _ = freshet.ParseBlockSize(set.Value) // 0 if it can't be read
		case freshet.PropertyDurableReplicas:
			s.replicas, _ = freshet.ParseDurableReplicas(set.Value) // 0 if it can't be read
		case freshet.PropertyReplicationMin:
			v, err := strconv.Atoi(set.Value)
			s.copies.Min, s.hasMin = v, err == nil
		case freshet.PropertyReplicationMax:
			v, err := strconv.Atoi(set.Value)
			s.copies.Max, s.hasMax = v, err == nil
		case freshet.PropertySyncInterval, freshet.PropertyTTLAction: // of a field of its own; of one value
		}
	}
	return s
}

// empty reports whether nothing is set.
func (p *Policy) empty() bool { return p.Bare && len(p.Settings) == 0 }

// checkPolicy checks the form of a policy.
func checkPolicy(op string, p *Policy) error {
	if q, err := freshet.ParsePath(string(p.Path)); err != nil || q != p.Path {
		return freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", p.Path)
	}
	for i, s := range p.Settings {
		if s.Property == "" || s.Property == freshet.PropertySyncInterval || (i > 0 && p.Settings[i-1].Property >= s.Property) {
			return freshet.Errorf(freshet.KindInvalid, op, p.Path, "the properties of a policy are not in order")
		}
	}
	return nil
}

func (x *index) insertPolicy(p Policy) {
	line := x.node(p.Path)
	line[len(line)-1].policy = rulesOf(&p)
	x.policies[p.Path] = p
}

func (x *index) deletePolicy(p freshet.Path) {
	line := x.node(p)
	line[len(line)-1].policy = nil
	delete(x.policies, p)
	x.prune(p)
}

// savePolicy makes p all that is set at its path.
func (t *txn) savePolicy(p *Policy) {
	key := t.keys.text(tablePolicy, string(p.Path))
	if p.empty() {
		t.deletePolicy(p.Path)
		t.del(key)
	} else {
		t.insertPolicy(*p)
		t.setRow(key, p)
	}
	t.changes.Policies = true
}

// policyAt returns a copy of what is set at a path, which may be changed.
func (t *txn) policyAt(p freshet.Path) Policy {
	held, ok := t.policies[p]
	if !ok {
		return Policy{Path: p, Bare: true}
	}
	held.Settings = slices.Clone(held.Settings)
	return held
}

func (t *txn) setPolicy(c *Policy) Result {
	if err := checkPolicy("change policy", c); err != nil {
		return Result{Err: err}
	}
	p := t.policyAt(c.Path)
	p.Interval, p.Origin, p.SetAt, p.Bare = c.Interval, c.Origin, c.SetAt, false
	t.savePolicy(&p)
	return Result{}
}

func (t *txn) removePolicy(c *RemovePolicy) Result {
	p, ok := t.policies[c.Path]
	if !ok || p.Bare {
		return Result{Err: freshet.Errorf(freshet.KindNotExist, "policy remove", c.Path, "no sync interval is set for exactly this path")}
	}
	p = t.policyAt(c.Path)
	p.unset(freshet.PropertySyncInterval)
	t.savePolicy(&p)
	return Result{}
}

func (t *txn) changePolicy(c *ChangePolicy) Result {
	const op = "change policy"
	if q, err := freshet.ParsePath(string(c.Path)); err != nil || q != c.Path {
		return Result{Err: freshet.Errorf(freshet.KindInvalid, op, "", "%q is not a canonical path", c.Path)}
	}
	p := t.policyAt(c.Path)
	if err := p.Change(c); err != nil {
		return Result{Err: err}
	}
	if err := checkPolicy(op, &p); err != nil {
		return Result{Err: err}
	}
	t.savePolicy(&p)
	return Result{}
}

// Change makes of p what the command makes of it. The settings of p are changed in
// place. After an error p is of no use.
func (p *Policy) Change(c *ChangePolicy) error {
	const op = "change policy"
	if p.empty() && len(c.Set) == 0 {
		return freshet.Errorf(freshet.KindNotExist, op, c.Path, "no policy is set for exactly this path; see \"freshet policy ls\"")
	}
	if c.Replace {
		for _, held := range p.properties() {
			if !slices.ContainsFunc(c.Set, func(s PolicySetting) bool { return s.Property == held }) {
				p.unset(held)
			}
		}
	}
	for _, prop := range c.Unset {
		if !p.unset(prop) {
			return freshet.Errorf(freshet.KindNotExist, op, c.Path, "%s is not set for exactly this path", prop)
		}
	}
	for _, s := range c.Set {
		if err := p.set(s); err != nil {
			return freshet.Wrap(op, c.Path, err)
		}
	}
	return nil
}

// properties returns what is set.
func (p *Policy) properties() []freshet.Property {
	var all []freshet.Property
	if !p.Bare {
		all = append(all, freshet.PropertySyncInterval)
	}
	for _, s := range p.Settings {
		all = append(all, s.Property)
	}
	return all
}

// set sets one property.
func (p *Policy) set(s PolicySetting) error {
	if s.Property == freshet.PropertySyncInterval {
		i, err := freshet.ParseInterval(s.Value)
		if err != nil {
			return err
		}
		p.Interval, p.Origin, p.SetAt, p.Bare = i, s.Origin, s.SetAt, false
		return nil
	}
	at, found := slices.BinarySearchFunc(p.Settings, s.Property, compareProperty)
	if found {
		p.Settings[at] = s
	} else {
		p.Settings = slices.Insert(p.Settings, at, s)
	}
	return nil
}

// unset removes one property and reports whether it was set.
func (p *Policy) unset(prop freshet.Property) bool {
	if prop == freshet.PropertySyncInterval {
		was := !p.Bare
		p.Interval, p.Origin, p.SetAt, p.Bare = 0, "", time.Time{}, true
		return was
	}
	at, found := slices.BinarySearchFunc(p.Settings, prop, compareProperty)
	if found {
		p.Settings = slices.Delete(p.Settings, at, at+1)
	}
	return found
}

func compareProperty(s PolicySetting, p freshet.Property) int { return cmp.Compare(s.Property, p) }

// EffectiveAt returns what applies to p, and the sync interval.
func (s *State) EffectiveAt(p freshet.Path) (Effective, freshet.Interval) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.resolve(p)
	return r.policy, r.interval
}

// PathOfFile returns the path of the entry that has a version, or that an upload
// of it is for. False if there is none, or the state can't be read.
func (s *State) PathOfFile(id freshet.FileID) (freshet.Path, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if op, ok := s.uploads[id]; ok {
		if in := s.intents[op]; in != nil {
			return in.Path, true
		}
	}
	info, _, ok, err := s.fileInfo(id)
	return info.Path, ok && err == nil
}
