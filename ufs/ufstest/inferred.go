package ufstest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// inferredCases are about what other programs put into an object store, which
// know nothing of directories.
func inferredCases() []testCase {
	return []testCase{
		{"list/delimiter", listDelimiter},
		{"list/200-children", list200},
		{"list/inferred-directories", listInferred},
		{"list/inferred-five-levels", listInferredDeep},
		{"list/empty-segments", listEmptySegments},
	}
}

// listDelimiter: a directory that holds many pages is one entry, wherever in a
// page it stands.
func listDelimiter(e *env) {
	e.fill("p/b", 4*e.h.PageSize)
	e.fill("p/d/sub", 4*e.h.PageSize)
	for _, key := range []string{"p/a", "p/c", "p/e", "p/f", "p/g"} {
		e.put(key, []byte(key))
	}
	want := []string{"p/a", "p/b/", "p/c", "p/d/", "p/e", "p/f", "p/g"}
	for size := e.h.PageSize; size <= e.h.PageSize+2; size++ {
		e.wantKeys("p", ufs.ListOptions{PageSize: size}, want...)
		for i, after := range want {
			e.wantKeys("p", ufs.ListOptions{PageSize: size, StartAfter: after}, want[i+1:]...)
		}
	}
	e.wantKeys("p", ufs.ListOptions{StartAfter: "p/b/n00003"}, want[2:]...) // inside of a directory
}

func list200(e *env) {
	want := e.fill("d", 200)
	for _, size := range []int{0, 50, 199, 200, 201} {
		if got := e.keys("d", ufs.ListOptions{PageSize: size}); !slices.Equal(got, want) {
			e.Errorf("pages of %d: got %d entries, want 200", size, len(got))
		}
	}
}

// listInferred: prefixes without any marker are directories for every call.
func listInferred(e *env) {
	out := e.outside()
	var want, direct []string
	for i := range 5 {
		dir := fmt.Sprintf("p/dir%d", i)
		want = append(want, dir+"/")
		direct = append(direct, dir+"/")
		for j := range 3 {
			key := fmt.Sprintf("%s/file%d", dir, j)
			e.must(out.Put(key, []byte(key)))
			want = append(want, key)
		}
	}
	for _, dir := range []string{"p", "p/dir0", "p/dir4"} {
		if st := e.stat(dir); !st.IsDir() {
			e.Errorf("%q: got %+v, want a directory", dir, st)
		}
	}
	e.wantKeys("", ufs.ListOptions{}, "p/")
	e.wantKeys("p", ufs.ListOptions{}, direct...)
	e.wantKeys("p", ufs.ListOptions{Recursive: true, PageSize: e.h.PageSize}, want...)
	_, err := e.fs.Mkdir(e.ctx(), "p/dir0", ufs.MkdirOptions{})
	e.wantKind(err, freshet.KindExist)
	e.wantKind(e.fs.Remove(e.ctx(), "p/dir0", ufs.RemoveOptions{}), freshet.KindConflict)
}

func listInferredDeep(e *env) {
	out := e.outside()
	var want []string
	dir := "n"
	for i := range 5 {
		dir = fmt.Sprintf("%s/level%d", dir, i)
		want = append(want, dir+"/")
	}
	e.must(out.Put(dir+"/file", []byte("x")))
	e.wantKeys("n", ufs.ListOptions{Recursive: true}, append(slices.Clone(want), dir+"/file")...)
	for _, d := range want {
		key := strings.TrimSuffix(d, "/")
		if st := e.stat(key); !st.IsDir() {
			e.Errorf("%q: got %+v, want a directory", key, st)
		}
		if got := e.keys(key, ufs.ListOptions{}); len(got) != 1 {
			e.Errorf("%q holds %q, want one entry", key, got)
		}
	}
	e.must(e.fs.Remove(e.ctx(), "n", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("n")
}

// listEmptySegments: what no key can name is left out, and all else is there.
func listEmptySegments(e *env) {
	if e.feat.RealDirectories {
		e.lacks("directories are real here: no name is empty")
	}
	out := e.outside()
	for _, key := range []string{"e/a", "e//b", "e/c//d", "e/f/", "e/f//", "e/g"} {
		e.must(out.Put(key, []byte("x")))
	}
	if out.Warned != nil {
		out.Warned() // forget what was before
	}
	for _, recursive := range []bool{false, true} {
		e.wantKeys("e", ufs.ListOptions{Recursive: recursive}, "e/a", "e/c/", "e/f/", "e/g")
		e.wantKeys("e", ufs.ListOptions{Recursive: recursive, PageSize: e.h.PageSize}, "e/a", "e/c/", "e/f/", "e/g")
	}
	if out.Warned != nil && !out.Warned() {
		e.Error("names were skipped without a warning")
	}
	e.wantContent("e/g", []byte("x"))
	e.must(e.fs.Remove(e.ctx(), "e", ufs.RemoveOptions{Recursive: true}))
	e.wantAbsent("e")
}
