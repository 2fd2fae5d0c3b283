package freshet_test

import (
	"errors"
	"testing"

	"github.com/freshet-io/freshet"
)

// FuzzSettings holds that a value is refused or canonical: what was accepted is
// accepted again, as the same.
func FuzzSettings(f *testing.F) {
	for _, p := range freshet.Properties() {
		for _, v := range []string{"", "10s", "always", "-1", "invalidate", "strict", "through", "must_cache", "free", "delete", "T", "64MiB", "67108864", "2", "1ns"} {
			f.Add(string(p), v)
		}
	}
	f.Add("owner", "me")
	f.Fuzz(func(t *testing.T, property, value string) {
		p := freshet.Property(property)
		got, err := freshet.ParseSetting(p, value)
		if err != nil {
			if !errors.Is(err, freshet.KindInvalid) && !errors.Is(err, freshet.KindUnsupported) {
				t.Fatalf("%s=%q: %v", p, value, err)
			}
			return
		}
		again, err := freshet.ParseSetting(p, got)
		if err != nil || again != got {
			t.Fatalf("%s=%q is %q is %q (%v)", p, value, got, again, err)
		}
	})
}

func TestDefaultSettingsAreValues(t *testing.T) {
	t.Parallel()
	seen := map[freshet.Property]bool{}
	for _, s := range freshet.DefaultSettings() {
		if got, err := freshet.ParseSetting(s.Property, s.Value); err != nil || got != s.Value || s.Origin != freshet.OriginDefault {
			t.Errorf("%+v: %q, %v", s, got, err)
		}
		seen[s.Property] = true
	}
	for _, p := range freshet.Properties() {
		if _, err := freshet.ParseSetting(p, "2"); !seen[p] && !errors.Is(err, freshet.KindUnsupported) {
			t.Errorf("%s has no default and is not refused: %v", p, err)
		}
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"": "operator", "terraform": "terraform", "my-tool_2": "my-tool_2", "apply": "apply"} {
		if got, err := freshet.ParseOrigin(s); err != nil || got != want {
			t.Errorf("%q: %q, %v", s, got, err)
		}
	}
	for _, s := range []string{"mount", "default", "A", "a b", "é", "a\n", "an-origin-of-more-than-thirty-two-bytes"} {
		if _, err := freshet.ParseOrigin(s); !errors.Is(err, freshet.KindInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}
