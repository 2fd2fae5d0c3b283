package namespace_test

import (
	"slices"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
)

// listen adds a mount with active sync of a domain of its own.
func (c *cluster) listen(p freshet.Path, d byte) freshet.Mount {
	c.t.Helper()
	m := mountOf(p, "/")
	m.Domain, m.ActiveSync = freshet.DomainID{d}, true
	return c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: m}}).Mount
}

// cursor returns what is kept of a source, "-" for nothing.
func (c *cluster) cursor(source string) string {
	at, ok := c.s.WatchCursor(source)
	if !ok {
		return "-"
	}
	return string(at.Cursor)
}

func TestMarksAndCursorAreOne(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	m := c.listen("/live", 17)
	c.load("/live/f", fileEntry("f", 1))
	c.load("/live/g", fileEntry("g", 1))
	hint := &namespace.Hint{
		Domain: m.Domain, Records: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/f"}},
		Source: "feed://live", Cursor: []byte("5"), Covers: []uint64{m.Generation},
	}
	heads := c.s.Heads()
	c.must(namespace.Command{Hint: hint})
	c.want("/live/f", false)
	c.want("/live/g", true)
	if at, ok := c.s.WatchCursor("feed://live"); !ok || string(at.Cursor) != "5" || !slices.Equal(at.Covers, []uint64{m.Generation}) || at.Domain != m.Domain {
		t.Errorf("%+v, %v", at, ok)
	}
	if after := c.s.Heads(); !slices.Equal(heads, after) {
		t.Errorf("a hint was published: %v, before %v", after, heads)
	}
	c.must(namespace.Command{Hint: &namespace.Hint{Domain: m.Domain, Source: "feed://live"}})
	if got := c.cursor("feed://live"); got != "5" {
		t.Errorf("a notice without a cursor took it away: %q", got)
	}
	c.must(namespace.Command{Hint: &namespace.Hint{Domain: domain, Source: "feed://nobody", Cursor: []byte("5")}})
	if got := c.cursor("feed://nobody"); got != "-" {
		t.Errorf("a cursor without a mount that listens: %q", got)
	}
	c.must(namespace.Command{ForgetWatch: &namespace.ForgetWatch{Source: "feed://live"}})
	c.kind(namespace.Command{ForgetWatch: &namespace.ForgetWatch{Source: "feed://live"}}, freshet.KindNotExist)
}

func TestACursorGoesWithTheLastMountThatListens(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(c *cluster, m freshet.Mount){
		"removed": func(c *cluster, m freshet.Mount) {
			c.must(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: m.Path}})
		},
		"listens no more": func(c *cluster, m freshet.Mount) {
			m.ActiveSync = false
			c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t)
			one, other := c.listen("/one", 17), mountOf("/other", "/")
			other.Domain, other.DomainKey, other.ActiveSync = freshet.DomainID{18}, "/", true
			other = c.must(namespace.Command{AddMount: &namespace.AddMount{Mount: other}}).Mount
			for _, m := range []freshet.Mount{one, other} {
				c.must(namespace.Command{Hint: &namespace.Hint{Domain: m.Domain, Source: "feed:" + string(m.Path), Cursor: []byte("5"), Covers: []uint64{m.Generation}}})
			}
			leave(c, one)
			if got := c.cursor("feed:/one") + c.cursor("feed:/other"); got != "-5" {
				t.Errorf("kept %q", got)
			}
		})
	}
}

func TestWhatWasLoadedBeforeAnybodyListenedIsMarked(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	m := c.look("/m").Mount
	other := c.listen("/live", 17)
	c.must(namespace.Command{Hint: &namespace.Hint{Domain: other.Domain, Source: "feed", Cursor: []byte("5"), Covers: []uint64{m.Generation, other.Generation}}})
	c.load("/m/f", fileEntry("f", 1))
	m.ActiveSync = true
	c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
	c.want("/m/f", false)
	if at, _ := c.s.WatchCursor("feed"); !slices.Equal(at.Covers, []uint64{other.Generation}) {
		t.Errorf("the cursor still covers what nobody listened to: %v", at.Covers)
	}
	c.load("/m/f", fileEntry("f", 1))
	c.want("/m/f", true)
	c.must(namespace.Command{UpdateMount: &namespace.UpdateMount{Mount: m}})
	c.want("/m/f", true)
}
