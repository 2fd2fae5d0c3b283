package ufs

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
)

// OptionType says what the text of an option is read as.
type OptionType uint8

// The types of options.
const (
	OptionString   OptionType = iota
	OptionBool                // true or false
	OptionInt                 // a decimal number
	OptionSize                // bytes: 5242880, 64KiB, 8MiB
	OptionDuration            // a Go duration: 90s, 31m
	OptionChoice              // one of Choices
	OptionSecret              // a reference: env:NAME, file:/path or iam
	OptionOctal               // permission bits: 0750
)

// Option is one row of the table of options that a storage knows.
type Option struct {
	Name    string
	Type    OptionType
	Default string
	// Min and Max bound numbers, sizes in bytes and durations in nanoseconds,
	// both included. Both 0 is 0 and up.
	Min, Max int64
	Choices  []string
	Help     string
}

// OptionTable is all that a storage knows. Names are without the scheme.
type OptionTable []Option

// Names of options that every storage has.
const (
	OptionDomain        = "domain"
	OptionDomainRoot    = "domain_root"
	OptionMaxOpLifetime = "max_op_lifetime"
	// OptionEventsToken is what must come with changes that are posted to us, and
	// OptionEventsMaxSilence for how long there may be none.
	OptionEventsToken      = "events_token" //nolint:gosec // the name of an option
	OptionEventsMaxSilence = "events_max_silence"
)

// CommonOptions returns the options that every storage has; maxOpLifetime is the
// storage's default for that one.
func CommonOptions(maxOpLifetime time.Duration) OptionTable {
	return append(OptionTable{
		{Name: OptionDomain, Help: "name of the domain where the URI does not tell it: the same storage under two names"},
		{Name: OptionDomainRoot, Help: "key of the mount's root in the domain, such as /a/b"},
		{Name: OptionMaxOpLifetime, Type: OptionDuration, Default: maxOpLifetime.String(), Max: int64(24 * time.Hour), Help: "how long an effect may still land after its sender died"},
		{Name: OptionEventsToken, Type: OptionSecret, Help: "bearer token that posts to /v1/events must carry for this storage"},
		{Name: OptionEventsMaxSilence, Type: OptionDuration, Max: int64(365 * 24 * time.Hour), Help: "with events=webhook: the mount is degraded when nothing was posted for so long"},
	}, append(cachingOptions(), guardOptions()...)...)
}

// Values are the options of one mount after they were checked.
type Values struct {
	table OptionTable
	text  map[string]string
	nums  map[string]int64
}

// Check reads options by the table. Whatever is wrong is KindInvalid and names
// the option, its value unless it may be a secret, and what is allowed.
func (t OptionTable) Check(scheme string, options map[string]string) (Values, error) {
	v := Values{table: t, text: map[string]string{}, nums: map[string]int64{}}
	for _, name := range (Spec{Options: options}).OptionNames() {
		row := slices.IndexFunc(t, func(o Option) bool { return o.Name == name })
		if row < 0 {
			return Values{}, t.unknown(scheme, name)
		}
		if err := v.set(t[row], options[name]); err != nil {
			return Values{}, &freshet.Error{Op: "check options", Kind: freshet.KindInvalid, Err: fmt.Errorf("option '%s' of %s: %w", name, scheme, err)}
		}
	}
	for _, o := range t {
		if _, ok := options[o.Name]; !ok && o.Default != "" {
			if err := v.set(o, o.Default); err != nil {
				return Values{}, freshet.Errorf(freshet.KindInternal, "check options", "", "default of option '%s' of %s: %w", o.Name, scheme, err)
			}
		}
	}
	return v, nil
}

func (t OptionTable) unknown(scheme, name string) error {
	names := make([]string, len(t))
	for i, o := range t {
		names[i] = o.Name
	}
	bare := strings.TrimPrefix(name, scheme+".")
	if bare != name && slices.Contains(names, bare) {
		return freshet.Errorf(freshet.KindInvalid, "check options", "", "unknown option '%s'; options of %s have no prefix: did you mean '%s'?", name, scheme, bare)
	}
	hint := didYouMean(bare, names)
	if hint == "" {
		hint = fmt.Sprintf("; %s knows %s", scheme, strings.Join(names, ", "))
	}
	return freshet.Errorf(freshet.KindInvalid, "check options", "", "unknown option '%s'%s", limit(name), hint)
}

// set reads text by the row o.
func (v Values) set(o Option, text string) (err error) {
	if strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return fmt.Errorf("the value contains a control character")
	}
	var n int64
	switch o.Type {
	case OptionString:
	case OptionBool:
		var b bool
		if b, err = parseBool(text); b {
			n = 1
		}
	case OptionInt:
		if n, err = strconv.ParseInt(text, 10, 64); err != nil {
			err = fmt.Errorf("%q is not a whole number", limit(text))
		}
	case OptionOctal:
		if n, err = strconv.ParseInt(text, 8, 32); err != nil {
			err = fmt.Errorf("%q is not an octal number such as 0750", limit(text))
		}
	case OptionSize:
		n, err = freshet.ParseSize(text)
	case OptionDuration:
		n, err = parseDuration(text)
	case OptionChoice:
		if !slices.Contains(o.Choices, text) {
			err = fmt.Errorf("%q is not one of %s%s", limit(text), strings.Join(o.Choices, ", "), didYouMean(text, o.Choices))
		}
	case OptionSecret:
		_, err = ParseSecretRef(text)
	}
	if o.Type == OptionInt || o.Type == OptionSize || o.Type == OptionDuration || o.Type == OptionOctal {
		low, high := o.bounds()
		if err != nil || n < low || n > high {
			if err == nil {
				err = fmt.Errorf("%q is out of range", limit(text))
			}
			err = fmt.Errorf("%w; allowed is %s to %s", err, o.format(low), o.format(high))
		}
	}
	v.text[o.Name], v.nums[o.Name] = text, n
	return err
}

func (o Option) bounds() (low, high int64) {
	if o.Max == 0 && o.Min == 0 {
		return 0, math.MaxInt64
	}
	return o.Min, o.Max
}

func (o Option) format(n int64) string {
	switch o.Type {
	case OptionDuration:
		return time.Duration(n).String()
	case OptionSize:
		return freshet.FormatSize(n)
	case OptionOctal:
		return fmt.Sprintf("%#o", n)
	default:
		return strconv.FormatInt(n, 10)
	}
}

func parseBool(s string) (bool, error) {
	switch s {
	case "true":
		return true, nil
	case "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is not true or false", limit(s))
}

func parseDuration(s string) (int64, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as 90s or 31m", limit(s))
	}
	return int64(d), nil
}

func limit(s string) string {
	if len(s) <= 40 {
		return s
	}
	return s[:37] + "..."
}

// Has reports whether the option was given or has a default.
func (v Values) Has(name string) bool { _, ok := v.text[v.row(name)]; return ok }

// Text returns the text of an option, "" if there is none.
func (v Values) Text(name string) string { return v.text[v.row(name)] }

// Bool returns an OptionBool.
func (v Values) Bool(name string) bool { return v.nums[v.row(name)] != 0 }

// Int returns an OptionInt, or an OptionSize in bytes.
func (v Values) Int(name string) int64 { return v.nums[v.row(name)] }

// Duration returns an OptionDuration.
func (v Values) Duration(name string) time.Duration { return time.Duration(v.nums[v.row(name)]) }

// row panics on a name that the table does not have: a slip of the driver.
func (v Values) row(name string) string {
	if !slices.ContainsFunc(v.table, func(o Option) bool { return o.Name == name }) {
		panic("ufs: option " + name + " is not in the table")
	}
	return name
}

// OverrideDomain returns c with the options domain and domain_root applied.
func (v Values) OverrideDomain(c Canonical) (Canonical, error) {
	if name := v.Text(OptionDomain); name != "" {
		if len(name) > 255 || strings.ContainsAny(name, " \t") {
			return c, freshet.Errorf(freshet.KindInvalid, "check options", "", "option 'domain': %q is not a name of up to 255 characters without spaces", limit(name))
		}
		c.Authority = name
	}
	if root := v.Text(OptionDomainRoot); root != "" {
		p, err := freshet.ParsePath(root)
		if err != nil {
			return c, freshet.Wrap("option 'domain_root'", "", err)
		}
		c.DomainKey = string(p)
	}
	return c, nil
}
