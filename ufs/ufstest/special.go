package ufstest

import (
	"maps"
	"slices"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func specialCases() []testCase {
	return []testCase{
		{"special/is-never-replaced", specialStays},
		{"special/is-not-created-again", specialIfAbsent},
	}
}

// eachSpecial runs f for every special entry that the storage can hold.
func (e *env) eachSpecial(f func(what, key string)) {
	e.Helper()
	makers := e.outside().Special
	if len(makers) == 0 {
		e.lacks("the storage holds files and directories only")
	}
	for _, what := range slices.Sorted(maps.Keys(makers)) {
		e.must(makers[what](what))
		f(what, what)
	}
}

// specialStays: neither a write nor a move replaces what is no regular file.
func specialStays(e *env) {
	e.eachSpecial(func(what, key string) {
		before, listed := e.stat(key), e.keys("", ufs.ListOptions{})
		_, err := e.write(key, []byte("new"), ufs.CreateOptions{})
		e.wantKind(err, freshet.KindConflict, freshet.KindPermission)
		e.put("source", []byte("moved"))
		_, err = e.fs.Rename(e.ctx(), "source", key)
		e.wantKind(err, freshet.KindConflict, freshet.KindPermission)
		e.wantContent("source", []byte("moved"))
		e.must(e.fs.Remove(e.ctx(), "source", ufs.RemoveOptions{}))
		after := e.stat(key)
		if after.Special != before.Special || after.Type != before.Type || after.Fingerprint != before.Fingerprint {
			e.Errorf("%s: was %+v, is %+v", what, before, after)
		}
		if now := e.keys("", ufs.ListOptions{}); !slices.Equal(now, listed) {
			e.Errorf("%s: the directory held %q, now %q", what, listed, now)
		}
	})
}

// specialIfAbsent: something is there, and it stays.
func specialIfAbsent(e *env) {
	e.eachSpecial(func(what, key string) {
		before := e.stat(key)
		_, err := e.write(key, []byte("new"), ufs.CreateOptions{IfAbsent: true})
		e.wantKind(err, freshet.KindExist, freshet.KindConflict, freshet.KindPermission)
		_, err = e.fs.Mkdir(e.ctx(), key, ufs.MkdirOptions{})
		e.wantKind(err, freshet.KindExist, freshet.KindConflict, freshet.KindPermission)
		if after := e.stat(key); after.Special != before.Special || after.Fingerprint != before.Fingerprint {
			e.Errorf("%s: was %+v, is %+v", what, before, after)
		}
	})
}
