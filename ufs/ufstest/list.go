package ufstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func listCases() []testCase {
	return []testCase{
		{"list/empty", listEmpty},
		{"list/missing", listMissing},
		{"list/file", listFile},
		{"list/plain", listPlain},
		{"list/recursive", listRecursive},
		{"list/order", listOrder},
		{"list/pages", listPages},
		{"list/start-after", listStartAfter},
		{"list/portions", listPortions},
		{"list/odd-names", listOddNames},
		{"list/stops-early", listStopsEarly},
		{"list/deep", listDeep},
		{"list/foreign-directory-marker", listForeignMarker},
		{"list/file-beside-prefix", listFileBesidePrefix},
		{"list/hides-temporary-names", listHidesTemporary},
	}
}

func listEmpty(e *env) {
	if got := e.keys("", ufs.ListOptions{}); len(got) != 0 {
		e.Errorf("fresh root: got %q", got)
	}
	e.mkdir("d")
	for _, recursive := range []bool{false, true} {
		if got := e.keys("d", ufs.ListOptions{Recursive: recursive}); len(got) != 0 {
			e.Errorf("empty directory: got %q", got)
		}
	}
}

func listMissing(e *env) {
	all, err := e.list("nothing", ufs.ListOptions{})
	if e.feat.DirectoryListsSelf {
		e.wantKind(err, freshet.KindNotExist)
	}
	if len(all) != 0 {
		e.Errorf("got %v", all)
	}
}

func listFile(e *env) {
	e.put("f", []byte("x"))
	all, err := e.list("f", ufs.ListOptions{})
	e.wantKind(err, freshet.KindConflict)
	if len(all) != 0 {
		e.Errorf("got %v", all)
	}
}

func (e *env) wantKeys(dir string, opts ufs.ListOptions, want ...string) {
	e.Helper()
	if got := e.keys(dir, opts); !slices.Equal(got, want) {
		e.Errorf("list %q %+v:\n got %q\nwant %q", dir, opts, got, want)
	}
}

func listPlain(e *env) {
	for _, key := range []string{"d/x", "d/sub/y", "d/sub/deep/z", "e", "dd"} {
		e.put(key, []byte(key))
	}
	e.wantKeys("", ufs.ListOptions{}, "d/", "dd", "e")
	e.wantKeys("d", ufs.ListOptions{}, "d/sub/", "d/x")
	all, err := e.list("d", ufs.ListOptions{})
	e.must(err)
	if st := all[1]; st.Key != "d/x" || st.Length != 3 || st.Type != freshet.TypeFile || st.ModTime.IsZero() {
		e.Errorf("got %+v", st)
	}
	if st := all[0]; st.Key != "d/sub" || !st.IsDir() || !st.Fingerprint.IsZero() {
		e.Errorf("got %+v", st)
	}
}

func listRecursive(e *env) {
	for _, key := range []string{"d/x", "d/sub/y", "d/sub/deep/z", "e"} {
		e.put(key, []byte(key))
	}
	e.mkdir("d/empty")
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/", "d/empty/", "d/sub/", "d/sub/deep/", "d/sub/deep/z", "d/sub/y", "d/x", "e")
	e.wantKeys("d/sub", ufs.ListOptions{Recursive: true}, "d/sub/deep/", "d/sub/deep/z", "d/sub/y")
}

func listOrder(e *env) {
	keys := []string{"a!", "a-b", "a.b", "a/b", "a/b-c", "a/b.d/x", "a0", "aB", "aa", "ä", "z z/1", "z%20z/2", "z+z/3"}
	for _, key := range keys {
		e.put(key, []byte("x"))
	}
	e.wantKeys("", ufs.ListOptions{}, "a!", "a-b", "a.b", "a/", "a0", "aB", "aa", "z z/", "z%20z/", "z+z/", "ä")
	e.wantKeys("", ufs.ListOptions{Recursive: true},
		"a!", "a-b", "a.b", "a/", "a/b", "a/b-c", "a/b.d/", "a/b.d/x", "a0", "aB", "aa", "z z/", "z z/1", "z%20z/", "z%20z/2", "z+z/", "z+z/3", "ä")
}

// listPages makes more than three pages, with directories between files and at
// the borders of pages.
func (e *env) many() []string {
	var want []string
	for i := range 4*e.h.PageSize + 1 {
		name := fmt.Sprintf("d/n%03d", i)
		if i%3 == 1 {
			e.put(name+"/below", []byte("x"))
			want = append(want, name+"/", name+"/below")
			continue
		}
		e.put(name, []byte("x"))
		want = append(want, name)
	}
	return want
}

func onlyDirect(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return strings.Count(strings.TrimSuffix(s, "/"), "/") > 1 })
}

func listPages(e *env) {
	want := e.many()
	e.wantKeys("d", ufs.ListOptions{PageSize: e.h.PageSize}, onlyDirect(want)...)
	e.wantKeys("d", ufs.ListOptions{PageSize: e.h.PageSize, Recursive: true}, want...)
}

func listStartAfter(e *env) {
	all := e.many()
	for _, recursive := range []bool{false, true} {
		want := all
		if !recursive {
			want = onlyDirect(all)
		}
		for i, after := range want {
			e.wantKeys("d", ufs.ListOptions{PageSize: e.h.PageSize, Recursive: recursive, StartAfter: after}, want[i+1:]...)
		}
		e.wantKeys("d", ufs.ListOptions{Recursive: recursive, StartAfter: "d/n000x"}, want[1:]...)
		e.wantKeys("d", ufs.ListOptions{Recursive: recursive, StartAfter: "a"}, want...)
		e.wantKeys("d", ufs.ListOptions{Recursive: recursive, StartAfter: "e"})
	}
}

// listPortions lists a few entries at a time, each time from where the last one
// ended, and again from an entry before, which a position must not hide.
func listPortions(e *env) {
	want := e.many()
	for _, recursive := range []bool{false, true} {
		want := want
		if !recursive {
			want = onlyDirect(want)
		}
		for portion := 1; portion <= len(want)+1; portion += e.h.PageSize - 1 {
			opts := ufs.ListOptions{PageSize: e.h.PageSize, Recursive: recursive, Position: new(ufs.Position)}
			for from := 0; from <= len(want); from += portion {
				to := min(from+portion, len(want))
				e.wantPortion(opts, want[from:to])
				if to > 0 {
					opts.StartAfter = want[to-1]
				}
			}
			opts.StartAfter = ""
			e.wantPortion(opts, want)
		}
	}
}

// wantPortion takes as many entries as are wanted.
func (e *env) wantPortion(opts ufs.ListOptions, want []string) {
	e.Helper()
	got := []string{}
	for st, err := range e.fs.List(e.ctx(), "d", opts) {
		e.must(err)
		got = append(got, st.SortKey())
		if len(got) >= len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		e.Errorf("%+v: got %q, want %q", opts, got, want)
	}
}

func oddNames() []string {
	return []string{
		" leading", "trailing ", "two  spaces", "per%cent", "%2e%2e%2f", "%00", "plus+plus", "quote'single", `quote"double`, "back\\slash", "..\\..\\x",
		"semi;colon", "a&b=c?d#e", "<img src=x onerror=alert(1)>", "star*[x]{y}", "tilde~", ".hidden", "...", "-dash", "ünïcödé", "日本語", "e\u0301 vs é",
		"emoji🙂", "\u202egnp.exe", strings.Repeat("n", 200),
	}
}

func listOddNames(e *env) {
	var want []string
	for _, name := range oddNames() {
		key := "odd/" + name
		data := []byte("content of " + name)
		st := e.put(key, data)
		if st.Key != key {
			e.Errorf("commit of %q says key %q", key, st.Key)
		}
		if got := e.stat(key); got.Key != key || got.Length != int64(len(data)) {
			e.Errorf("stat of %q: %+v", key, got)
		}
		e.wantContent(key, data)
		want = append(want, key)
	}
	slices.Sort(want)
	e.wantKeys("odd", ufs.ListOptions{}, want...)
	e.wantKeys("odd", ufs.ListOptions{Recursive: true, PageSize: e.h.PageSize}, want...)
	for _, dir := range []string{"dir with space/x", "dir%2Fpercent/x", "dir+plus/ü"} {
		e.put(dir, []byte("y"))
		e.wantKeys(ufs.ParentKey(dir), ufs.ListOptions{}, dir)
	}
	for _, name := range oddNames() {
		e.must(e.fs.Remove(e.ctx(), "odd/"+name, ufs.RemoveOptions{}))
		e.wantAbsent("odd/" + name)
	}
}

func listStopsEarly(e *env) {
	e.many()
	n := 0
	for _, err := range e.fs.List(e.ctx(), "d", ufs.ListOptions{Recursive: true, PageSize: e.h.PageSize}) {
		e.must(err)
		if n++; n == e.h.PageSize+1 {
			break
		}
	}
	e.stat("d/n000") // still usable
}

func listDeep(e *env) {
	key := strings.Repeat("deep/", 40) + "f"
	e.put(key, []byte("x"))
	got := e.keys("", ufs.ListOptions{Recursive: true})
	if len(got) != 41 || got[40] != key {
		e.Errorf("got %d entries ending in %q", len(got), got[len(got)-1])
	}
	e.must(e.fs.Remove(e.ctx(), "deep", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("deep")
}

// listForeignMarker: other programs make empty objects with a trailing slash.
func listForeignMarker(e *env) {
	if e.feat.RealDirectories {
		e.lacks("directories are real here: no key can end in a slash")
	}
	out := e.outside()
	e.must(out.Put("m/", nil))
	e.must(out.Put("n/", nil))
	e.must(out.Put("n/f", []byte("x")))
	if st := e.stat("m"); !st.IsDir() {
		e.Errorf("got %+v", st)
	}
	e.wantKeys("", ufs.ListOptions{}, "m/", "n/")
	e.wantKeys("m", ufs.ListOptions{})
	e.wantKeys("n", ufs.ListOptions{}, "n/f")
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "m/", "n/", "n/f")
	e.must(e.fs.Remove(e.ctx(), "m", ufs.RemoveOptions{}))
	e.wantAbsent("m")
}

// listFileBesidePrefix: object stores can hold a and a/b at once.
func listFileBesidePrefix(e *env) {
	if e.feat.RealDirectories {
		e.lacks("directories are real here: a file can't have entries below it")
	}
	out := e.outside()
	e.must(out.Put("a", []byte("file")))
	e.must(out.Put("a/b", []byte("below")))
	e.must(out.Put("a-c", []byte("between")))
	e.wantKeys("", ufs.ListOptions{}, "a", "a-c", "a/")
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "a", "a-c", "a/", "a/b")
	if st := e.stat("a"); st.IsDir() || st.Length != 4 {
		e.Errorf("got %+v, want the file", st)
	}
	e.wantContent("a", []byte("file"))
	e.wantContent("a/b", []byte("below"))
}

func listHidesTemporary(e *env) {
	out := e.outside()
	e.must(out.Put("d/"+ufs.TempPrefix+"left-behind", []byte("x")))
	e.must(out.Put("d/.freshetlike", []byte("x")))
	e.must(out.Put("d/f", []byte("x")))
	e.wantKeys("d", ufs.ListOptions{}, "d/.freshetlike", "d/f")
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/", "d/.freshetlike", "d/f")
	e.wantAbsent("d/" + ufs.TempPrefix + "left-behind")
	_, _, err := e.open("d/"+ufs.TempPrefix+"left-behind", ufs.OpenOptions{Length: -1})
	e.wantKind(err, freshet.KindNotExist)
	_, err = e.fs.Create(e.ctx(), "d/"+ufs.TempPrefix+"mine", ufs.CreateOptions{Size: -1})
	e.wantKind(err, freshet.KindPermission)
}
