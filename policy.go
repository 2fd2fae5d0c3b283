package freshet

import (
	"slices"
	"strconv"
	"time"
)

// Property names one thing that a policy can say of a path and what lies below it.
type Property string

// The properties.
const (
	PropertySyncInterval   Property = "sync_interval"   // how old a validation may be
	PropertyConsistency    Property = "consistency"     // a Level
	PropertyWriteType      Property = "write_type"      // of writes that name none
	PropertyTTL            Property = "ttl"             // after so long without use TTLAction happens
	PropertyTTLAction      Property = "ttl_action"      // "free"
	PropertyPinned         Property = "pinned"          // cached blocks are not evicted for lack of space
	PropertyBlockSize      Property = "block_size"      // of the versions of files that are made from then on
	PropertyReplicationMin Property = "replication_min" // live copies of a cached block at least
	PropertyReplicationMax Property = "replication_max" // live copies of a cached block at most, 0 for no limit
	// PropertyDurableReplicas is on how many cache nodes a file that is not in the storage
	// yet is durable when it is acknowledged.
	PropertyDurableReplicas Property = "durable_replicas"
)

// Properties returns all properties, in the order in which they are shown.
func Properties() []Property {
	return []Property{
		PropertySyncInterval, PropertyConsistency, PropertyWriteType, PropertyTTL, PropertyTTLAction,
		PropertyPinned, PropertyBlockSize, PropertyReplicationMin, PropertyReplicationMax, PropertyDurableReplicas,
	}
}

// The origins that have a meaning of their own. A client may name any other that
// ParseOrigin accepts, such as "terraform".
const (
	OriginMount    = "mount"    // a setting of the mount itself
	OriginConfig   = "config"   // the configuration that founded the cluster
	OriginApply    = "apply"    // `freshet apply`
	OriginOperator = "operator" // a person; the default
	OriginDefault  = "default"  // nothing is set: what the product does by itself
)

// Setting is the value of one property. Value is its canonical text, as
// ParseSetting returns it.
type Setting struct {
	Property Property
	Value    string
	Path     Path // where it is set, "" for a default
	Origin   string
	SetAt    time.Time
}

// Policy is what is set at one path, in the order of Properties.
type Policy struct {
	Path     Path
	Settings []Setting
}

// PolicyReport is what is set and, if a path was asked for, what applies there.
type PolicyReport struct {
	// Policies are those of all paths, or of the path and those above it; of two
	// at one path the mount's own comes first, which the other overrides.
	Policies []Policy
	// Effective has each property that this release serves, once.
	Effective []Setting
}

// PolicyChange asks to change what is set at one path.
type PolicyChange struct {
	Path Path
	// Set names property and value; the other fields of a Setting are not read.
	Set []Setting
	// Unset names properties that must be set there (KindNotExist).
	Unset []Property
	// Replace removes everything that Set does not name.
	Replace bool
	Origin  string // "" is OriginOperator
	DryRun  bool
}

// MinTTL is the shortest TTL.
const MinTTL = time.Second

// ParseSetting checks a value of a property and returns its canonical text.
// KindInvalid for what makes no sense, KindUnsupported for what this release
// can't do: it is refused rather than stored without effect.
func ParseSetting(p Property, value string) (string, error) {
	const op = "check policy"
	unbuilt := func(format string, args ...any) (string, error) {
		return "", Errorf(KindUnsupported, op, "", format, args...)
	}
	switch p {
	case PropertySyncInterval:
		i, err := ParseInterval(value)
		return i.String(), err
	case PropertyConsistency:
		l, err := parseWord[Level]("consistency level", levels(), value)
		if err == nil && l != LevelInvalidate && l != LevelInterval {
			return unbuilt("consistency %q is not built yet: use %q or %q", l, LevelInvalidate, LevelInterval)
		}
		return l.String(), err
	case PropertyWriteType:
		w, err := parseWord[WriteType]("write type", writeTypes(), value)
		return w.String(), err
	case PropertyTTL:
		return parseTTL(value)
	case PropertyTTLAction:
		switch value {
		case "free":
			return value, nil
		case "delete":
			return unbuilt("ttl_action \"delete\", which removes files from the storage, is not built yet: use \"free\", which drops what is cached of them")
		}
		return "", Errorf(KindInvalid, op, "", "%q is not a ttl_action: use \"free\"", value)
	case PropertyPinned:
		b, err := strconv.ParseBool(value)
		if err != nil {
			return "", Errorf(KindInvalid, op, "", "pinned is %q: use \"true\" or \"false\"", value)
		}
		return strconv.FormatBool(b), nil
	case PropertyBlockSize:
		n, err := ParseBlockSize(value)
		return FormatSize(n), err
	case PropertyReplicationMin, PropertyReplicationMax:
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 || n > MaxCopies {
			return "", Errorf(KindInvalid, op, "", "%s is %q: use a number of copies from 0 to %d", p, value, MaxCopies)
		}
		return strconv.Itoa(n), nil
	case PropertyDurableReplicas:
		n, err := ParseDurableReplicas(value)
		return strconv.Itoa(n), err
	}
	return "", Errorf(KindInvalid, op, "", "%q is not a property of a policy: use one of %q", string(p), Properties())
}

func parseTTL(value string) (string, error) {
	i, err := ParseInterval(value)
	if err == nil && i >= 0 && time.Duration(i) < MinTTL {
		err = Errorf(KindInvalid, "check policy", "", "a ttl of %s would keep nothing: use %s or more, or \"never\"", value, MinTTL)
	}
	return i.String(), err
}

// ParseOrigin checks the name of who set something; "" is OriginOperator.
func ParseOrigin(s string) (string, error) {
	const longest = 32
	switch s {
	case "":
		return OriginOperator, nil
	case OriginMount, OriginDefault:
		return "", Errorf(KindInvalid, "check origin", "", "origin %q is the product's own: use another word", s)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return "", Errorf(KindInvalid, "check origin", "", "origin %q: use lower-case letters, digits, \"-\" and \"_\"", s)
		}
	}
	if len(s) > longest {
		return "", Errorf(KindInvalid, "check origin", "", "origin %q is longer than %d bytes", s, longest)
	}
	return s, nil
}

// DefaultSettings are the settings of a path for which nothing is set, of the
// properties that this release serves.
func DefaultSettings() []Setting {
	set := func(p Property, v string) Setting { return Setting{Property: p, Value: v, Origin: OriginDefault} }
	return []Setting{
		set(PropertySyncInterval, Never.String()), set(PropertyConsistency, LevelInvalidate.String()),
		set(PropertyWriteType, CacheThrough.String()), set(PropertyTTL, Never.String()), set(PropertyTTLAction, "free"),
		set(PropertyPinned, "false"), set(PropertyBlockSize, FormatSize(DefaultBlockSize)),
		set(PropertyReplicationMin, "0"), set(PropertyReplicationMax, "0"), set(PropertyDurableReplicas, "1"),
	}
}

// Normalize checks the change and makes its values canonical.
func (c *PolicyChange) Normalize() error {
	const op = "check policy"
	var err error
	if c.Origin, err = ParseOrigin(c.Origin); err != nil {
		return err
	}
	if len(c.Set)+len(c.Unset) == 0 && !c.Replace {
		return Errorf(KindInvalid, op, c.Path, "no property is named: use one of %q", Properties())
	}
	seen := map[Property]bool{}
	set := make([]Setting, len(c.Set))
	for i, s := range c.Set {
		if seen[s.Property] {
			return Errorf(KindInvalid, op, c.Path, "%s is there twice", s.Property)
		}
		seen[s.Property] = true
		if s.Value, err = ParseSetting(s.Property, s.Value); err != nil {
			return Wrap(op, c.Path, err)
		}
		set[i] = Setting{Property: s.Property, Value: s.Value}
	}
	if err := CheckReplication(c.Path, set); err != nil {
		return err
	}
	c.Set = set
	for _, p := range c.Unset {
		switch {
		case !slices.Contains(Properties(), p):
			return Errorf(KindInvalid, op, c.Path, "%q is not a property of a policy: use one of %q", string(p), Properties())
		case seen[p]:
			return Errorf(KindInvalid, op, c.Path, "%s is to be set and unset, or unset twice", p)
		}
		seen[p] = true
	}
	return nil
}

// CheckReplication refuses settings, in canonical text, of which the least number of
// copies is above the most.
func CheckReplication(p Path, all []Setting) error {
	r := map[Property]int{}
	for _, s := range all {
		if s.Property == PropertyReplicationMin || s.Property == PropertyReplicationMax {
			r[s.Property], _ = strconv.Atoi(s.Value) // canonical
		}
	}
	least, most := r[PropertyReplicationMin], r[PropertyReplicationMax]
	if most > 0 && least > most {
		return Errorf(KindInvalid, "check policy", p, "at least %d and at most %d copies of a block are asked for: lower replication_min, or raise replication_max (0 is no limit)", least, most)
	}
	return nil
}
