package freshet_test

import (
	"math"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
)

func FuzzSize(f *testing.F) {
	for _, seed := range []string{"0", "64KiB", "8 MiB", "+1", "-1", "1e3", "9223372036854775807", "8PiB", "8192PiB", "1B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := freshet.ParseSize(s)
		if err != nil {
			return
		}
		if again, err := freshet.ParseSize(freshet.FormatSize(n)); n < 0 || err != nil || again != n {
			t.Fatalf("%q is %d is %q is %d (%v)", s, n, freshet.FormatSize(n), again, err)
		}
	})
}

func TestFormatSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1024: "1KiB", 1536: "1536B", 5 << 30: "5GiB", math.MaxInt64: "9223372036854775807B"} {
		if got := freshet.FormatSize(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestBlockSizesOfAPolicyAreBounded(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"64KiB": "64KiB", "65536": "64KiB", "64 KiB": "64KiB", "192KiB": "192KiB", "1MiB": "1MiB", "1536KiB": "1536KiB", "64MiB": "64MiB",
		"67108864": "64MiB", "1GiB": "1GiB", "1024MiB": "1GiB",
	} {
		n, err := freshet.ParseBlockSize(in)
		if got := freshet.FormatSize(n); err != nil || got != want {
			t.Errorf("%q: got %s, %v", in, got, err)
		}
		if got, err := freshet.ParseSetting(freshet.PropertyBlockSize, in); err != nil || got != want {
			t.Errorf("%q as a property: got %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "0", "-64KiB", "64", "32KiB", "65537", "100000", "64KB", "2GiB", "1073741825", "1TiB", "1e6", "9223372036854775807", "big"} {
		for _, parse := range []func(string) error{
			func(s string) error { _, err := freshet.ParseBlockSize(s); return err },
			func(s string) error { _, err := freshet.ParseSetting(freshet.PropertyBlockSize, s); return err },
		} {
			if err := parse(in); !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "a multiple of 64KiB up to 1GiB") {
				t.Errorf("%q: %v", in, err)
			}
		}
	}
}
