package metasync_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/ufs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestChildrenComeInTheStoragesOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	alphabet := "a-./0b!"
	for range 2000 {
		set := map[string]bool{} // name -> is a directory
		for range rng.IntN(30) {
			name := ""
			for range 1 + rng.IntN(5) {
				if c := alphabet[rng.IntN(len(alphabet))]; c != '/' {
					name += string(c)
				}
			}
			if name != "" {
				set[name] = rng.IntN(2) == 0
			}
		}
		var names, want []string
		for name := range set {
			names = append(names, name)
		}
		slices.Sort(names)
		for i, name := range names {
			if set[name] {
				names[i] += "/"
			}
			want = append(want, names[i])
		}
		slices.Sort(want)
		got, most := metasync.Reordered(names)
		if !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		if most > 6 { // no longer names are made, and one more is read ahead
			t.Fatalf("%d wait of %q", most, names)
		}
	}
}

func TestOnlyPrefixesWait(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 100_000 {
		names = append(names, fmt.Sprintf("d%06d/", i))
	}
	if got, most := metasync.Reordered(names); len(got) != len(names) || most > 2 {
		t.Errorf("%d of %d came, %d waited", len(got), len(names), most)
	}
}

func TestAFileHidesADirectoryOfItsName(t *testing.T) {
	t.Parallel()
	var listing []ufs.Status
	for _, k := range []string{"a", "a!", "a-", "a-/", "a.txt", "a/", "a0", "b/", "b0", "c", "d/"} {
		st := ufs.Status{Key: strings.TrimSuffix(k, "/")}
		if strings.HasSuffix(k, "/") {
			st.Type = freshet.TypeDirectory
		}
		listing = append(listing, st)
	}
	want := []string{"a", "a!", "a-", "a.txt", "a0", "b/", "b0", "c", "d/"}
	if got := metasync.Shown(listing); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNamesThatNoPathCanHaveAreNotShown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		dir, key, name string
		ok             bool
	}{
		{"", "a", "a", true},
		{"d", "d/a b%+é", "a b%+é", true},
		{"d", "d/a/b", "a/b", false},
		{"d", "e/a", "e/a", false},
		{"d", "d/\xff", "\xff", false},
		{"", "a\nb", "a\nb", false},
		{"", strings.Repeat("x", 256), strings.Repeat("x", 256), false},
		{"", ".freshet.tmp", ".freshet.tmp", false},
		{"", "..", "..", false},
		{"d", "d/", "", false},
	} {
		if name, ok := metasync.NameIn(c.dir, c.key); ok != c.ok || (ok && name != c.name) {
			t.Errorf("%q in %q: %q, %v", c.key, c.dir, name, ok)
		}
	}
}

func FuzzNameIn(f *testing.F) {
	f.Add("d", "d/a")
	f.Fuzz(func(t *testing.T, dir, key string) {
		name, ok := metasync.NameIn(dir, key)
		if !ok {
			return
		}
		if _, err := freshet.ParsePath("/x/" + name); err != nil || strings.Contains(name, "/") {
			t.Errorf("%q in %q is shown as %q: %v", key, dir, name, err)
		}
	})
}

func TestAChildsLaterRecordOverridesTheListings(t *testing.T) {
	t.Parallel()
	m := metasync.NewMemory(100)
	slow := m.Begin(5, 0)
	listing := m.Begin(7, 0)
	slow.Validated("/d/x") // installed while the listing was compared
	listing.Listed("/d")
	if got := m.Entry("/d/x"); got != 5 {
		t.Errorf("x is covered from %d on", got)
	}
	if got := m.Entry("/d/y"); got != 7 {
		t.Errorf("y is covered from %d on", got)
	}
	m.Begin(9, 0).Listed("/d")
	if got := m.Entry("/d/x"); got != 9 {
		t.Errorf("x is covered from %d on by the next listing", got)
	}
	m.Doubt("/d/x")
	if got := m.Entry("/d/x"); got != 0 {
		t.Errorf("x is covered from %d on in spite of the doubt", got)
	}
	if got := m.Entry("/"); got != 0 {
		t.Errorf("the root is covered from %d on", got)
	}
}

func TestTheMemoryIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	m := metasync.NewMemory(1000)
	m.Begin(3, 0).Validated("/hot")
	for i := range 10_000 {
		m.Begin(4, 0).Validated(freshet.Path(fmt.Sprintf("/p%d", i)))
		if i%100 == 0 && m.Entry("/hot") != 3 {
			t.Fatalf("what is used was forgotten after %d", i)
		}
		if m.Size() > 1000 {
			t.Fatalf("%d records", m.Size())
		}
	}
	if m.Entry("/p0") != 0 {
		t.Error("nothing was forgotten")
	}
}
