package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

const (
	opMountAdd    = "mount add"
	opMountUpdate = "mount update"
	opMountRemove = "mount remove"
)

// DefaultDegradedInterval applies while a publisher of a mount's domain is out of
// contact, if the mount does not say otherwise.
const DefaultDegradedInterval = freshet.Interval(60 * time.Second)

// Mounts returns the mounts in order of their paths, or the one at p if p is not
// empty, and the applied index.
func (c *Coordinator) Mounts(ctx context.Context, p freshet.Path) ([]freshet.MountAnswer, uint64, error) {
	if err := c.barrier(ctx); err != nil {
		return nil, 0, err
	}
	index := c.state.Applied()
	mounts, _ := c.state.Mounts()
	var out []freshet.MountAnswer
	for _, m := range mounts {
		if p == "" || m.Path == p {
			out = append(out, c.mountAnswer(m, nil))
		}
	}
	if p != "" && len(out) == 0 {
		return nil, 0, freshet.Errorf(freshet.KindNotExist, "mount show", p, "no storage is mounted there")
	}
	return out, index, nil
}

func (c *Coordinator) mountAnswer(m freshet.Mount, notes []string) freshet.MountAnswer {
	a := freshet.MountAnswer{Mount: m, Notes: notes}
	if canonical, err := c.openers.Parse(ufs.Spec{URI: m.URI, Options: m.Options}); err == nil {
		a.Authority = canonical.Authority
	}
	a.DegradedReason = cmp.Or(c.unopened(m.ID), c.missing(&m))
	a.Degraded = a.DegradedReason != ""
	a.ActiveSync = c.activeStatus(&m)
	if a.ActiveSync != nil && (c.unopened(m.ID) != "" || c.degraded(m.Domain) != "") {
		a.ActiveSync.Connecting = false // that is not all that is wrong
	}
	return a
}

// unopened says why the storage of a mount can't be used in this process, "" if it
// can be or is about to be opened.
func (c *Coordinator) unopened(id freshet.MountID) string {
	_, release, err := c.mounts.Get(id)
	switch {
	case err == nil:
		release()
		return ""
	case freshet.IsKind(err, freshet.KindNotExist):
		return ""
	}
	return fmt.Sprintf("its storage can't be used: %v", err)
}

// planMount checks a change that is to become a mount, without asking the
// storage.
func (c *Coordinator) planMount(ch freshet.MountChange) (freshet.Mount, []string, error) {
	m := freshet.Mount{
		Path: ch.Path, Options: map[string]string{}, Level: freshet.LevelInvalidate, Interval: freshet.Never,
		DegradedInterval: DefaultDegradedInterval, CreatedAt: c.clock.Now().UTC(), Origin: ch.Origin,
	}
	if ch.URI == nil || *ch.URI == "" {
		return m, nil, freshet.Errorf(freshet.KindInvalid, opMountAdd, ch.Path, "the URI of the storage is missing")
	}
	m = merge(m, ch)
	notes, err := checkLevel(m, ch.Interval != nil)
	if err != nil {
		return m, nil, freshet.Wrap(opMountAdd, ch.Path, err)
	}
	more, err := c.locate(&m, ch.DryRun)
	return m, append(notes, more...), freshet.Wrap(opMountAdd, ch.Path, err)
}

// merge applies a change to a mount.
func merge(m freshet.Mount, ch freshet.MountChange) freshet.Mount {
	m.Options = maps.Clone(m.Options)
	if m.Options == nil {
		m.Options = map[string]string{}
	}
	if ch.URI != nil && *ch.URI != "" {
		m.URI = *ch.URI
	}
	for name, value := range ch.Options {
		if value == "" {
			delete(m.Options, name)
		} else {
			m.Options[name] = value
		}
	}
	set(&m.ReadOnly, ch.ReadOnly)
	set(&m.Level, ch.Level)
	set(&m.Interval, ch.Interval)
	set(&m.DegradedInterval, ch.DegradedInterval)
	set(&m.ActiveSync, ch.ActiveSync)
	if ch.Origin != "" {
		m.Origin = ch.Origin
	}
	return m
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// checkLevel checks path, level and interval.
func checkLevel(m freshet.Mount, intervalGiven bool) (notes []string, err error) {
	if err := checkPath(m.Path); err != nil {
		return nil, err
	}
	if err := m.Path.CheckWritable(); err != nil {
		return nil, err
	}
	switch m.Level {
	case freshet.LevelBounded, freshet.LevelStrict:
		return nil, freshet.Errorf(freshet.KindUnsupported, "check mount", m.Path, "consistency level %q is not built yet: use %q or %q", m.Level, freshet.LevelInvalidate, freshet.LevelInterval)
	case freshet.LevelInterval:
		if m.Interval < 0 {
			return nil, freshet.Errorf(freshet.KindInvalid, "check mount", m.Path, "consistency level %q needs a sync interval: give a duration such as 5m, or always", m.Level)
		}
	case freshet.LevelInvalidate:
		if !intervalGiven && m.Interval < 0 && !m.ActiveSync {
			notes = append(notes, "sync interval is never: changes made directly in the storage, not through a cluster on the bus, are seen after `freshet sync now` only; set an interval if there are such writers")
		}
	}
	return notes, nil
}

// locate checks the storage settings and fills in what follows from them.
func (c *Coordinator) locate(m *freshet.Mount, dryRun bool) (notes []string, err error) {
	spec := ufs.Spec{URI: m.URI, Options: m.Options}
	canonical, err := c.openers.Parse(spec)
	if err != nil {
		return nil, err
	}
	fs, err := c.openers.Open(spec.Clone(), c.environment(dryRun))
	if err != nil {
		return nil, err
	}
	// Other clusters may name the same directory through other links.
	canonical = ufs.Resolve(fs, canonical)
	m.Domain, m.DomainKey = canonical.Domain(), canonical.DomainKey
	m.MaxOpLifetime = fs.Features().MaxOpLifetime
	if m.ActiveSync {
		if notes, err = checkActive(fs, m); err != nil {
			return nil, firstError(errors.Join(err, fs.Close()))
		}
	}
	return notes, fs.Close()
}

// environment is what the process allows; a dry run may not even make what an
// option asks for.
func (c *Coordinator) environment(dryRun bool) ufs.Environment {
	env := c.opts.Environment
	env.DryRun = dryRun
	return env
}

// probe asks the storage of a mount that is not open yet whether it answers.
func (c *Coordinator) probe(ctx context.Context, m freshet.Mount, dryRun bool) error {
	fs, err := c.openers.Open(ufs.Spec{URI: m.URI, Options: maps.Clone(m.Options)}, c.environment(dryRun))
	if err != nil {
		return err
	}
	if c.opts.Wrap != nil {
		fs = c.opts.Wrap(fs)
	}
	if c.opts.WrapMount != nil {
		fs = c.opts.WrapMount(m, fs)
	}
	ctx, cancel := context.WithTimeout(ctx, c.opts.ProbeTimeout)
	defer cancel()
	err = ufs.Probe(ctx, fs)
	if asker, ok := ufs.WatcherOf(fs).(ufs.SourceChecker); ok && err == nil && m.ActiveSync {
		err = asker.CheckSource(ctx)
	}
	return errors.Join(err, fs.Close())
}

// AddMount attaches a storage, after it was asked whether it answers and whether
// the mount would hide anything.
func (c *Coordinator) AddMount(ctx context.Context, ch freshet.MountChange) (freshet.MountAnswer, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.MountAnswer{}, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		return c.mountAgain(ch.Path, err)
	}
	setDefault(&ch.Origin, "operator")
	m, notes, err := c.planMount(ch)
	if err != nil {
		return freshet.MountAnswer{}, err
	}
	others, _ := c.state.Mounts()
	if err := checkBeside(m, others); err != nil {
		return freshet.MountAnswer{}, err
	}
	if err := c.checkHidden(ctx, m); err != nil {
		return freshet.MountAnswer{}, err
	}
	if err := firstError(c.probe(ctx, m, ch.DryRun)); err != nil {
		return freshet.MountAnswer{}, freshet.Wrap(opMountAdd, ch.Path, err)
	}
	notes = append(notes, c.nearMisses(m, others)...)
	if !ch.DryRun {
		results, err := c.propose(ctx, namespace.Command{AddMount: &namespace.AddMount{Mount: m}})
		if err != nil {
			return freshet.MountAnswer{}, err
		}
		if results[0].Done { // by a call that ran beside this one
			return c.mountAgain(ch.Path, nil)
		}
		m = results[0].Mount
		c.log.Info("mount added", "path", string(m.Path), "uri", m.URI, "mount_id", uint64(m.ID), "level", m.Level.String())
	}
	return c.mountAnswer(m, notes), nil
}

// firstError unwraps a join of one error, so that its kind is seen.
func firstError(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only what errors.Join made here
		return joined.Unwrap()[0]
	}
	return err
}

// checkBeside says why a mount can't be beside others.
func checkBeside(m freshet.Mount, others []freshet.Mount) error {
	for _, o := range others {
		if o.Path == m.Path {
			return freshet.Errorf(freshet.KindExist, opMountAdd, m.Path, "%s is mounted there already: unmount it first, or update it", o.URI)
		}
		if o.Domain != m.Domain {
			continue
		}
		_, in := invalidation.Matches(o.DomainKey, m.DomainKey, false)
		_, out := invalidation.Matches(m.DomainKey, o.DomainKey, false)
		if in || out {
			return freshet.Errorf(freshet.KindConflict, opMountAdd, m.Path, "%s overlaps %s, which is mounted at %s: one part of a storage can be mounted only once", m.URI, o.URI, o.Path)
		}
	}
	return nil
}

// checkHidden refuses a mount over an entry of the enclosing mount's storage.
func (c *Coordinator) checkHidden(ctx context.Context, m freshet.Mount) error {
	around, ok := c.state.MountAt(m.Path)
	if !ok || around.Path == m.Path {
		return nil
	}
	l, err := c.state.Lookup(m.Path)
	if err != nil || l.Virtual {
		return err
	}
	_, err = c.sync.Entry(ctx, m.Path, metasync.Fixed(freshet.Always))
	switch {
	case freshet.IsKind(err, freshet.KindNotExist):
		return nil
	case err != nil && !freshet.IsKind(err, freshet.KindConflict):
		return freshet.Errorf(freshet.KindOf(err), opMountAdd, m.Path, "the enclosing mount at %s can't be asked whether something would be hidden: %w", around.Path, err)
	}
	return freshet.Errorf(freshet.KindConflict, opMountAdd, m.Path,
		"%s holds an entry of the mount at %s, which would be hidden: choose a path that does not exist there", m.Path, around.Path)
}

// nearMisses warns of domains that look like one storage and count as two.
func (c *Coordinator) nearMisses(m freshet.Mount, others []freshet.Mount) []string {
	var notes []string
	mine, err := ufs.ParseURI(m.URI)
	if err != nil {
		return nil
	}
	for _, o := range others {
		theirs, err := ufs.ParseURI(o.URI)
		if err != nil || o.Domain == m.Domain || theirs.Scheme != mine.Scheme || theirs.Host != mine.Host {
			continue
		}
		notes = append(notes, fmt.Sprintf("%s at %s names the same host or bucket but counts as another storage; if it is the same one, set the option domain=NAME on both, else changes of one are not seen in the other", o.URI, o.Path))
	}
	return notes
}

// UpdateMount changes the settings of a mount while it serves.
func (c *Coordinator) UpdateMount(ctx context.Context, ch freshet.MountChange) (freshet.MountAnswer, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.MountAnswer{}, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		return c.mountAgain(ch.Path, err)
	}
	old, err := c.mountAtPoint(opMountUpdate, ch.Path)
	if err != nil {
		return freshet.MountAnswer{}, err
	}
	if ch.IfGeneration != 0 && ch.IfGeneration != old.Generation {
		return freshet.MountAnswer{}, freshet.Errorf(freshet.KindConflict, opMountUpdate, ch.Path, "the mount's generation is %d, not %d: it was changed meanwhile, read it again", old.Generation, ch.IfGeneration)
	}
	m := merge(old, ch)
	notes, err := checkLevel(m, ch.Interval != nil || ch.Level == nil)
	// What does not change the storage must also work while that is away.
	same := m.URI == old.URI && ufs.SameStorage(m.Options, old.Options)
	if err == nil {
		_, err = ufs.ParseGuards(m.Options)
	}
	if err == nil {
		_, err = ufs.ParseCaching(m.Options, ufs.Caching{})
	}
	if !same || (m.ActiveSync && !old.ActiveSync) {
		var more []string
		if err == nil {
			more, err = c.locate(&m, ch.DryRun)
		}
		if err == nil {
			err = c.probe(ctx, m, ch.DryRun)
		}
		notes = append(notes, more...)
	}
	if err != nil {
		return freshet.MountAnswer{}, freshet.Wrap(opMountUpdate, ch.Path, firstError(err))
	}
	if m.Domain != old.Domain || m.DomainKey != old.DomainKey {
		return freshet.MountAnswer{}, freshet.Errorf(freshet.KindConflict, opMountUpdate, ch.Path, "the change names another storage, or another part of it, than %s: remove the mount and add it again", old.URI)
	}
	if !ch.DryRun {
		results, err := c.propose(ctx, namespace.Command{UpdateMount: &namespace.UpdateMount{
			Mount: m, IfGeneration: old.Generation, SameStorage: same && !maps.Equal(m.Options, old.Options),
		}})
		if err != nil {
			return freshet.MountAnswer{}, err
		}
		if results[0].Done { // by a call that ran beside this one
			return c.mountAgain(ch.Path, nil)
		}
		m = results[0].Mount
		c.log.Info("mount updated", "path", string(m.Path), "generation", m.Generation, "level", m.Level.String(), "interval", m.Interval.String())
	}
	return c.mountAnswer(m, notes), nil
}

func (c *Coordinator) mountAtPoint(op string, p freshet.Path) (freshet.Mount, error) {
	m, ok := c.state.MountAt(p)
	if !ok || m.Path != p {
		return m, freshet.Errorf(freshet.KindNotExist, op, p, "no storage is mounted there")
	}
	return m, nil
}

// RemoveMount detaches a storage and drops what is known and cached of it. The
// storage itself stays as it is.
func (c *Coordinator) RemoveMount(ctx context.Context, p freshet.Path, opts freshet.RemoveMountOptions) (freshet.MountAnswer, error) {
	if err := c.barrier(ctx); err != nil {
		return freshet.MountAnswer{}, err
	}
	if done, err := c.repeated(ctx); done || err != nil {
		return c.mountAgain(p, err)
	}
	m, err := c.mountAtPoint(opMountRemove, p)
	if err != nil {
		return freshet.MountAnswer{}, err
	}
	a := c.mountAnswer(m, nil)
	if opts.DryRun {
		return a, c.checkRemove(m, opts.Force)
	}
	_, err = c.propose(ctx, namespace.Command{RemoveMount: &namespace.RemoveMount{Path: p, Force: opts.Force}})
	if err == nil {
		c.log.Info("mount removed", "path", string(p), "uri", m.URI, "mount_id", uint64(m.ID))
	}
	return a, err
}

// checkRemove says what the state would say of a removal.
func (c *Coordinator) checkRemove(m freshet.Mount, force bool) error {
	mounts, _ := c.state.Mounts()
	for _, o := range mounts {
		if o.ID != m.ID && m.Path.Contains(o.Path) {
			return freshet.Errorf(freshet.KindConflict, opMountRemove, m.Path, "mounts are nested in it: unmount %s first", o.Path)
		}
	}
	if !force && slices.ContainsFunc(c.state.Intents(), func(in namespace.Intent) bool { return in.Mount == m.ID }) {
		return freshet.Errorf(freshet.KindConflict, opMountRemove, m.Path, "operations on it have not ended: wait for them, or force it")
	}
	return nil
}
