package ufstest

import (
	"fmt"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func treeCases() []testCase {
	return []testCase{
		{"mkdir/new", mkdirNew},
		{"mkdir/existing", mkdirExisting},
		{"mkdir/over-file", mkdirOverFile},
		{"mkdir/outlives-its-children", mkdirOutlives},
		{"remove/file", removeFile},
		{"remove/missing", removeMissing},
		{"remove/empty-directory", removeEmptyDirectory},
		{"remove/full-directory", removeFull},
		{"remove/tree", removeTree},
		{"remove/many-children", removeMany},
		{"remove/root", removeRoot},
		{"setattr", setAttr},
	}
}

func mkdirNew(e *env) {
	st, err := e.fs.Mkdir(e.ctx(), "a/b/c", ufs.MkdirOptions{})
	e.must(err)
	if st.Key != "a/b/c" || !st.IsDir() {
		e.Errorf("got %+v", st)
	}
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "a/", "a/b/", "a/b/c/")
}

func mkdirExisting(e *env) {
	e.mkdir("d")
	e.put("p/f", []byte("x"))
	for _, key := range []string{"d", "p"} {
		_, err := e.fs.Mkdir(e.ctx(), key, ufs.MkdirOptions{})
		e.wantKind(err, freshet.KindExist)
		st, err := e.fs.Mkdir(e.ctx(), key, ufs.MkdirOptions{Existing: true})
		e.must(err)
		if st.Key != key || !st.IsDir() {
			e.Errorf("got %+v", st)
		}
	}
	e.wantContent("p/f", []byte("x"))
}

func mkdirOverFile(e *env) {
	e.put("f", []byte("x"))
	for _, existing := range []bool{false, true} {
		_, err := e.fs.Mkdir(e.ctx(), "f", ufs.MkdirOptions{Existing: existing})
		e.wantKind(err, freshet.KindExist)
	}
	if e.feat.RealDirectories {
		_, err := e.fs.Mkdir(e.ctx(), "f/d", ufs.MkdirOptions{})
		e.wantKind(err, freshet.KindConflict)
	}
	e.wantContent("f", []byte("x"))
}

func mkdirOutlives(e *env) {
	e.mkdir("d")
	e.put("d/f", []byte("x"))
	e.must(e.fs.Remove(e.ctx(), "d/f", ufs.RemoveOptions{}))
	if !e.stat("d").IsDir() {
		e.Error("the directory is gone")
	}
	e.wantKeys("", ufs.ListOptions{}, "d/")
}

func removeFile(e *env) {
	e.put("d/f", []byte("x"))
	e.put("d/g", []byte("y"))
	e.must(e.fs.Remove(e.ctx(), "d/f", ufs.RemoveOptions{}))
	e.wantAbsent("d/f")
	e.wantKeys("d", ufs.ListOptions{}, "d/g")
	e.must(e.fs.Remove(e.ctx(), "d/g", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("d/g")
}

func removeMissing(e *env) {
	e.put("f", []byte("x"))
	for _, key := range []string{"nothing", "no/such", "f/below"} {
		for _, recursive := range []bool{false, true} {
			e.wantKind(e.fs.Remove(e.ctx(), key, ufs.RemoveOptions{Recursive: recursive}), freshet.KindNotExist)
		}
	}
}

func removeEmptyDirectory(e *env) {
	e.mkdir("a/d")
	e.must(e.fs.Remove(e.ctx(), "a/d", ufs.RemoveOptions{}))
	e.wantAbsent("a/d")
	e.mkdir("a/d")
	e.must(e.fs.Remove(e.ctx(), "a/d", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("a/d")
}

func removeFull(e *env) {
	e.put("d/f", []byte("x"))
	e.wantKind(e.fs.Remove(e.ctx(), "d", ufs.RemoveOptions{}), freshet.KindConflict)
	e.wantContent("d/f", []byte("x"))
}

func removeTree(e *env) {
	e.mkdir("d/empty")
	for i := range 3 * e.h.PageSize {
		e.put(fmt.Sprintf("d/%d/f", i), []byte("x"))
	}
	e.put("d-beside", []byte("stays"))
	e.put("d0/f", []byte("stays"))
	e.must(e.fs.Remove(e.ctx(), "d", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("d")
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d-beside", "d0/", "d0/f")
}

// removeMany: a listing of many pages, and a removal of as many.
func removeMany(e *env) {
	want := e.fill("d/many", e.h.Many)
	e.put("d/stays", []byte("stays"))
	e.put("d/many-beside", []byte("stays"))
	if got := e.keys("d/many", ufs.ListOptions{}); !slices.Equal(got, want) {
		e.Fatalf("listed %d of %d entries", len(got), len(want))
	}
	e.wantKeys("d", ufs.ListOptions{}, "d/many-beside", "d/many/", "d/stays")
	middle := len(want) / 2
	if got := e.keys("", ufs.ListOptions{Recursive: true, StartAfter: want[middle]}); len(got) != len(want)-middle-1+1 {
		e.Errorf("listed %d entries after %q", len(got), want[middle])
	}
	e.must(e.fs.Remove(e.ctx(), "d/many", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("d/many")
	e.wantAbsent(want[middle])
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/", "d/many-beside", "d/stays")
	e.wantNothingLeft()
}

func removeRoot(e *env) {
	e.put("f", []byte("x"))
	for _, recursive := range []bool{false, true} {
		e.wantKind(e.fs.Remove(e.ctx(), "", ufs.RemoveOptions{Recursive: recursive}), freshet.KindConflict)
	}
	e.wantContent("f", []byte("x"))
}

func setAttr(e *env) {
	st := e.put("f", []byte("x"))
	mode := uint32(0o640)
	got, err := e.fs.SetAttr(e.ctx(), "f", ufs.Attr{Mode: &mode})
	if !e.feat.OwnerAndMode {
		e.wantKind(err, freshet.KindUnsupported)
		return
	}
	e.must(err)
	if got.Mode != mode || got.Owner != st.Owner || got.Group != st.Group {
		e.Errorf("got %+v", got)
	}
	owner, group := st.Owner, st.Group
	if _, err := e.fs.SetAttr(e.ctx(), "f", ufs.Attr{Owner: &owner, Group: &group}); err != nil {
		e.Errorf("setting owner and group to what they are: %v", err)
	}
	e.mkdir("d")
	mode = 0o750
	if got, err := e.fs.SetAttr(e.ctx(), "d", ufs.Attr{Mode: &mode}); err != nil || got.Mode != mode || !got.IsDir() {
		e.Errorf("directory: %+v, %v", got, err)
	}
	_, err = e.fs.SetAttr(e.ctx(), "nothing", ufs.Attr{Mode: &mode})
	e.wantKind(err, freshet.KindNotExist)
	nobody := "no-such-user-anywhere"
	_, err = e.fs.SetAttr(e.ctx(), "f", ufs.Attr{Owner: &nobody})
	e.wantKind(err, freshet.KindInvalid, freshet.KindOK)
}
