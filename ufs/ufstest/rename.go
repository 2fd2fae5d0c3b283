package ufstest

import (
	"context"
	"slices"
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
	names := []string{"here", "there"}
	files := len(e.fill("here", min(e.h.Many, 200)))
	ctx, stop := context.WithCancel(e.ctx())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			defer stop() // a failure ends the movement too
			for ctx.Err() == nil {
				if !e.lookAtBoth(names, files) {
					return
				}
			}
		})
	}
	for i := range 60 {
		if ctx.Err() != nil {
			break
		}
		_, err := e.fs.Rename(e.ctx(), names[i%2], names[1-i%2])
		e.must(err)
	}
	stop()
	wg.Wait()
}

// lookAtBoth reports whether the listing of the root, and of the directory that
// it shows, could be of one moment.
func (e *env) lookAtBoth(names []string, files int) bool {
	all, err := e.list("", ufs.ListOptions{})
	if err != nil || len(all) != 1 || !slices.Contains(names, all[0].Key) {
		e.Errorf("while a directory moves the root holds %v, %v", all, err)
		return false
	}
	below, err := e.list(all[0].Key, ufs.ListOptions{})
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist) || err == nil && len(below) != files && len(below) != 0 {
		e.Errorf("while a directory of %d files moves it holds %d, %v", files, len(below), err)
		return false
	}
	return true
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
