package freshet_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("/a", freshet.MaxPathDepth)
	seg := strings.Repeat("s", freshet.MaxSegmentLen)
	for _, tc := range []struct{ in, want, text string }{
		{in: "/", want: "/"},
		{in: "//", want: "/"},
		{in: "/a", want: "/a"},
		{in: "/a/", want: "/a"},
		{in: "//a///b//", want: "/a/b"},
		{in: "/..\\..\\x", want: "/..\\..\\x"},
		{in: "/%2e%2e%2f", want: "/%2e%2e%2f"},
		{in: "/...", want: "/..."},
		{in: "/a b/+/é", want: "/a b/+/é"},
		{in: "/\u202egnp.exe", want: "/\u202egnp.exe"},
		{in: "/.freshet.x", want: "/.freshet.x"},
		{in: deep, want: deep},
		{in: "/" + seg, want: "/" + seg},
		{in: "", text: "path is empty"},
		{in: "a", text: `does not start with "/"`},
		{in: "../a", text: `does not start with "/"`},
		{in: "/../etc/passwd", text: `path contains ".." segment`},
		{in: "/a/../b", text: `path contains ".." segment`},
		{in: "/a/.", text: `path contains "." segment`},
		{in: "/a\x00b", text: "path contains NUL at byte 2"},
		{in: "/a/\nb", text: "control character 0x0a at byte 3"},
		{in: "/\x1b[31m", text: "control character 0x1b at byte 1"},
		{in: "/\x7f", text: "control character 0x7f"},
		{in: "/\xc0\xaf", text: "path is not valid UTF-8"},
		{in: "/" + strings.Repeat("x/", 2048), text: "path longer than 4096 bytes"},
		{in: "/" + seg + "s", text: "segment longer than 255 bytes"},
		{in: deep + "/a", text: "129 segments, more than 128"},
	} {
		got, err := freshet.ParsePath(tc.in)
		switch {
		case tc.text == "" && (err != nil || string(got) != tc.want):
			t.Errorf("%.80q: got %q, %v, want %q", tc.in, got, err, tc.want)
		case tc.text != "" && (!freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), tc.text) || got != ""):
			t.Errorf("%.80q: got %q, %v, want invalid and %q", tc.in, got, err, tc.text)
		}
	}
}

func TestCheckWritable(t *testing.T) {
	t.Parallel()
	for p, want := range map[freshet.Path]freshet.Kind{
		"/": freshet.KindOK, "/a/b": freshet.KindOK, "/a.freshet": freshet.KindOK,
		"/.freshet": freshet.KindPermission, "/a/.freshet.x/b": freshet.KindPermission, "/.freshetlike": freshet.KindPermission,
	} {
		if got := freshet.KindOf(p.CheckWritable()); got != want {
			t.Errorf("%s: %v, want %v", p, got, want)
		}
	}
}

func TestPathParts(t *testing.T) {
	t.Parallel()
	for p, want := range map[freshet.Path]struct {
		parent   freshet.Path
		base     string
		segments []string
	}{
		"/":      {"/", "", nil},
		"/a":     {"/", "a", []string{"a"}},
		"/a/b/c": {"/a/b", "c", []string{"a", "b", "c"}},
	} {
		if p.Parent() != want.parent || p.Base() != want.base || !slices.Equal(p.Segments(), want.segments) {
			t.Errorf("%s: parent %s, base %q, segments %q", p, p.Parent(), p.Base(), p.Segments())
		}
		if !p.IsRoot() && p.Parent().Join(p.Base()) != p {
			t.Errorf("%s: parent joined with base is %s", p, p.Parent().Join(p.Base()))
		}
	}
}

func TestContainsIsBySegments(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		p, q freshet.Path
		in   bool
		rel  string
	}{
		{"/", "/", true, ""},
		{"/", "/a/b", true, "a/b"},
		{"/a", "/a", true, ""},
		{"/a", "/a/b/c", true, "b/c"},
		{"/data/a", "/data/ab", false, ""},
		{"/a/b", "/a", false, ""},
		{"/a", "/", false, ""},
		{"/a", "/b/a", false, ""},
	} {
		if tc.p.Contains(tc.q) != tc.in {
			t.Errorf("%s contains %s: %v", tc.p, tc.q, !tc.in)
		}
		if tc.in && tc.p.Rel(tc.q) != tc.rel {
			t.Errorf("%s relative to %s: %q, want %q", tc.q, tc.p, tc.p.Rel(tc.q), tc.rel)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"/", "/a//b/", "/../x", "/a\x00", "/%2e%2e", "/.freshet.x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := freshet.ParsePath(s)
		if err != nil {
			if freshet.KindOf(err) != freshet.KindInvalid || len(err.Error()) > 400 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		again, err := freshet.ParsePath(string(p))
		if err != nil || again != p {
			t.Fatalf("%q is %q is %q (%v)", s, p, again, err)
		}
		rebuilt := freshet.Root
		for _, seg := range p.Segments() {
			if seg == "" || seg == "." || seg == ".." {
				t.Fatalf("%q: segment %q", s, seg)
			}
			rebuilt = rebuilt.Join(seg)
		}
		if rebuilt != p {
			t.Fatalf("%q: rebuilt as %q", p, rebuilt)
		}
		for up := p; !up.IsRoot(); {
			up = up.Parent()
			if !up.Contains(p) || p.Contains(up) || up.Join(up.Rel(p)) != p {
				t.Fatalf("%q and its ancestor %q", p, up)
			}
		}
	})
}
