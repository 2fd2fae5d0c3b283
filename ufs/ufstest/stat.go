package ufstest

import (
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func statCases() []testCase {
	return []testCase{
		{"stat/file", statFile},
		{"stat/directory", statDirectory},
		{"stat/root", statRoot},
		{"stat/missing", statMissing},
		{"stat/below-file", statBelowFile},
		{"stat/bad-key", statBadKey},
		{"stat/prefix-directory", statPrefixDirectory},
		{"stat/modification-time", statModTime},
		{"features", features},
	}
}

func statFile(e *env) {
	e.put("d/f", []byte("hello"))
	st := e.stat("d/f")
	if st.Key != "d/f" || st.Type != freshet.TypeFile || st.Length != 5 || st.Special != "" {
		e.Errorf("got %+v", st)
	}
	e.known(st.Fingerprint)
	if age := time.Since(st.ModTime); age < -time.Minute || age > 10*time.Minute {
		e.Errorf("modification time %v is %v ago", st.ModTime, age)
	}
	if e.feat.OwnerAndMode && (st.Owner == "" || st.Group == "" || st.Mode == 0) {
		e.Errorf("no owner, group or mode in %+v", st)
	}
}

func statDirectory(e *env) {
	e.mkdir("d")
	st := e.stat("d")
	if st.Key != "d" || !st.IsDir() || st.Length != 0 || !st.Fingerprint.IsZero() {
		e.Errorf("got %+v, want a directory without length and fingerprint", st)
	}
}

func statRoot(e *env) {
	if st := e.stat(""); st.Key != "" || !st.IsDir() {
		e.Errorf("root: got %+v, want a directory", st)
	}
}

func statMissing(e *env) {
	for _, key := range []string{"nothing", "no/such/parent"} {
		_, err := e.fs.Stat(e.ctx(), key)
		e.wantKind(err, freshet.KindNotExist)
	}
	e.put("abc", []byte("x"))
	e.wantAbsent("ab")
}

func statBelowFile(e *env) {
	e.put("f", []byte("x"))
	e.wantAbsent("f/below")
}

func statBadKey(e *env) {
	for _, key := range []string{"/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/../../b", "a/./b", "nul\x00"} {
		_, err := e.fs.Stat(e.ctx(), key)
		e.wantKind(err, freshet.KindInvalid)
		_, _, err = e.fs.Open(e.ctx(), key, ufs.OpenOptions{Length: -1})
		e.wantKind(err, freshet.KindInvalid)
		_, err = e.fs.Create(e.ctx(), key, ufs.CreateOptions{Size: -1})
		e.wantKind(err, freshet.KindInvalid)
		_, err = e.list(key, ufs.ListOptions{})
		e.wantKind(err, freshet.KindInvalid)
		e.wantKind(e.fs.Remove(e.ctx(), key, ufs.RemoveOptions{}), freshet.KindInvalid)
	}
}

func statPrefixDirectory(e *env) {
	e.put("a/b/c", []byte("x"))
	for _, dir := range []string{"a", "a/b"} {
		if st := e.stat(dir); !st.IsDir() {
			e.Errorf("%q: got %+v, want a directory", dir, st)
		}
	}
}

// statModTime: all ways to ask give the same time, near to now, and a later
// version gets a later time after no more than what Features say.
func statModTime(e *env) {
	res := e.feat.ModTimeResolution
	if res <= 0 {
		e.Fatalf("Features.ModTimeResolution is %v", res)
	}
	e.put("f", []byte("x"))
	first := e.stat("f").ModTime
	if off := time.Since(first).Abs(); off > 30*time.Second+res {
		e.Errorf("written just now, modified %v from now", off)
	}
	_, opened, err := e.open("f", ufs.OpenOptions{Length: -1})
	e.must(err)
	for by, t := range map[string]time.Time{"list": e.listed("f").ModTime, "open": opened.ModTime} {
		if t.Sub(first).Abs() >= res && !t.Equal(first) {
			e.Errorf("%s says %v, stat %v: more than the resolution %v apart", by, t, first, res)
		}
	}
	limit := time.After(2*res + 30*time.Second)
	for i := 1; ; i++ {
		e.put("f", pattern(byte(i), 10))
		now := e.stat("f").ModTime
		if now.Before(first) {
			e.Fatalf("version %d is of %v, the one before of %v", i, now, first)
		}
		if now.After(first) {
			return
		}
		select {
		case <-limit:
			e.Fatalf("%d versions later the time is still %v, Features say %v", i, now, res)
		case <-time.After(res / 8):
		}
	}
}

func features(e *env) {
	if e.feat.Kind == "" {
		e.Error("Features.Kind is empty")
	}
	if again := e.fs.Features(); again != e.feat {
		e.Errorf("features changed from %+v to %+v", e.feat, again)
	}
}
