package ufstest

import (
	"fmt"
	"strings"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func renameCases() []testCase {
	return []testCase{
		{"rename/file", renameFile},
		{"rename/over-file", renameOverFile},
		{"rename/directory", renameDirectory},
		{"rename/large-directory", renameLargeDirectory},
		{"rename/deep-directory", renameDeep},
		{"rename/at-once", renameAtOnce},
		{"rename/missing", renameMissing},
		{"rename/into-itself", renameIntoItself},
		{"rename/over-directory", renameOverDirectory},
		{"rename/directory-over-file", renameDirectoryOverFile},
	}
}

func renameFile(e *env) {
	data := pattern(40, e.h.Large)
	e.put("a/f", data)
	st, err := e.fs.Rename(e.ctx(), "a/f", "b/c/g")
	e.must(err)
	if st.Key != "b/c/g" || st.Length != int64(len(data)) || !st.Fingerprint.Equal(e.stat("b/c/g").Fingerprint) {
		e.Errorf("rename gives %+v, stat %+v", st, e.stat("b/c/g"))
	}
	e.wantAbsent("a/f")
	e.wantContent("b/c/g", data)
}

func renameOverFile(e *env) {
	e.put("f", []byte("new"))
	old := e.put("g", []byte("old"))
	st, err := e.fs.Rename(e.ctx(), "f", "g")
	e.must(err)
	if st.Fingerprint.SameContent(old.Fingerprint) {
		e.Error("the fingerprint is still that of the replaced file")
	}
	e.wantAbsent("f")
	e.wantContent("g", []byte("new"))
}

func renameDirectory(e *env) {
	e.put("d/f", []byte("1"))
	e.put("d/sub/g", []byte("2"))
	e.mkdir("d/empty")
	e.put("d-beside", []byte("stays"))
	st, err := e.fs.Rename(e.ctx(), "d", "x/y")
	e.must(err)
	if st.Key != "x/y" || !st.IsDir() {
		e.Errorf("got %+v", st)
	}
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d-beside", "x/", "x/y/", "x/y/empty/", "x/y/f", "x/y/sub/", "x/y/sub/g")
	e.wantContent("x/y/sub/g", []byte("2"))
}

func renameLargeDirectory(e *env) {
	want := e.many()
	children := e.fill("d/children", min(e.h.Many, 200))
	want = append(append([]string{"d/children/"}, children...), want...)
	_, err := e.fs.Rename(e.ctx(), "d", "e")
	e.must(err)
	e.wantAbsent("d")
	for i := range want {
		want[i] = "e" + want[i][1:]
	}
	e.wantKeys("e", ufs.ListOptions{Recursive: true}, want...)
	e.wantNothingLeft()
}

// renameDeep: nine levels move, and what was read before is read again.
func renameDeep(e *env) {
	deep := "d" + strings.Repeat("/deep", 8)
	for i, dir := 0, deep; dir != ""; i, dir = i+1, ufs.ParentKey(dir) {
		e.put(dir+"/f", pattern(byte(i), 50))
	}
	before := e.keys("d", ufs.ListOptions{Recursive: true})
	_, err := e.fs.Rename(e.ctx(), "d", "far/away/e")
	e.must(err)
	e.wantAbsent("d")
	e.wantAbsent(deep + "/f")
	want := make([]string, len(before))
	for i, key := range before {
		want[i] = "far/away/e" + key[1:]
	}
	e.wantKeys("far/away/e", ufs.ListOptions{Recursive: true}, want...)
	for i, dir := 0, deep; dir != ""; i, dir = i+1, ufs.ParentKey(dir) {
		e.wantContent("far/away/e"+dir[1:]+"/f", pattern(byte(i), 50))
	}
}

// renameAtOnce: nobody sees a directory at both of its names, at neither, or half.
func renameAtOnce(e *env) {
	if !e.feat.AtomicRename {
		e.lacks("Features.AtomicRename is false: a rename is announced as a copy and a removal of each file")
	}
	files := len(e.fill("d0", min(e.h.Many, 200)))
	for i := range 30 {
		from, to := fmt.Sprintf("d%d", i), fmt.Sprintf("d%d", i+1)
		begun, moved, seen := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(seen)
			e.watchMove(from, to, files, begun, moved)
		}()
		<-begun
		_, err := e.fs.Rename(e.ctx(), from, to)
		close(moved)
		<-seen
		e.must(err)
	}
}

// watchMove looks at both names until the directory is seen at the new one. One
// look is after the other: what is gone here must be there, and what is there
// must be gone here and whole.
func (e *env) watchMove(from, to string, files int, begun chan<- struct{}, moved <-chan struct{}) {
	is := func(key string) bool {
		_, err := e.fs.Stat(e.ctx(), key)
		if err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
			e.Errorf("stat %q while it moves: %v", key, err)
		}
		return err == nil
	}
	begin := sync.OnceFunc(func() { close(begun) })
	defer begin()
	for last := false; ; {
		select {
		case <-moved:
			last = true
		default:
		}
		gone := !is(from)
		if there := is(to); there {
			if is(from) {
				e.Errorf("%q is there, and %q too", to, from)
			}
			if got, err := e.list(to, ufs.ListOptions{}); err != nil || len(got) != files {
				e.Errorf("%q is there with %d of %d files, %v", to, len(got), files, err)
			}
			return
		} else if gone || last {
			e.Errorf("%q is not there; %q is gone: %v; the rename returned: %v", to, from, gone, last)
			return
		}
		begin()
	}
}

func renameMissing(e *env) {
	_, err := e.fs.Rename(e.ctx(), "nothing", "there")
	e.wantKind(err, freshet.KindNotExist)
	e.wantAbsent("there")
	if !e.isEmpty() {
		e.Error("a refused rename left something behind")
	}
}

func renameIntoItself(e *env) {
	e.put("d/f", []byte("x"))
	for _, to := range []string{"d/d", "d/sub/deep"} {
		_, err := e.fs.Rename(e.ctx(), "d", to)
		e.wantKind(err, freshet.KindInvalid)
	}
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/", "d/f")
}

func renameOverDirectory(e *env) {
	e.put("f", []byte("x"))
	e.put("d/g", []byte("y"))
	e.mkdir("empty")
	e.mkdir("from")
	for _, pair := range [][2]string{{"f", "d"}, {"f", "empty"}, {"from", "d"}} {
		_, err := e.fs.Rename(e.ctx(), pair[0], pair[1])
		e.wantKind(err, freshet.KindConflict, freshet.KindExist)
	}
	e.wantKeys("", ufs.ListOptions{Recursive: true}, "d/", "d/g", "empty/", "f", "from/")
}

func renameDirectoryOverFile(e *env) {
	e.put("f", []byte("x"))
	e.put("d/g", []byte("y"))
	_, err := e.fs.Rename(e.ctx(), "d", "f")
	e.wantKind(err, freshet.KindConflict, freshet.KindExist)
	e.wantContent("f", []byte("x"))
	e.wantContent("d/g", []byte("y"))
}
