package ufstest

import (
	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
)

func versionCases() []testCase {
	return []testCase{
		{"fingerprint/one-truth", fingerprintOneTruth},
		{"fingerprint/stable", fingerprintStable},
		{"fingerprint/overwrite", fingerprintOverwrite},
		{"fingerprint/outside-change", fingerprintOutside},
		{"fingerprint/append", fingerprintAppend},
		{"fingerprint/recreated", fingerprintRecreated},
		{"fingerprint/metadata-only", fingerprintMetadata},
		{"fingerprint/encodes", fingerprintEncodes},
		{"fingerprint/second-process", fingerprintSecondProcess},
	}
}

func (e *env) listed(key string) ufs.Status {
	e.Helper()
	all, err := e.list(ufs.ParentKey(key), ufs.ListOptions{})
	e.must(err)
	for _, st := range all {
		if st.Key == key {
			return st
		}
	}
	e.Fatalf("%q is not listed", key)
	return ufs.Status{}
}

// fingerprintOneTruth: commit, stat, list, recursive list and open say the same.
func fingerprintOneTruth(e *env) {
	for _, key := range []string{"small", "d/large"} {
		var commit ufs.Status
		if key == "small" {
			commit = e.put(key, []byte("x"))
		} else {
			commit = e.writeLarge(key, -1)
		}
		all, err := e.list("", ufs.ListOptions{Recursive: true})
		e.must(err)
		_, opened, err := e.open(key, ufs.OpenOptions{Length: 1})
		e.must(err)
		found := map[string]fingerprint.Fingerprint{"stat": e.stat(key).Fingerprint, "list": e.listed(key).Fingerprint, "open": opened.Fingerprint}
		for _, st := range all {
			if st.Key == key {
				found["recursive list"] = st.Fingerprint
			}
		}
		for by, fp := range found {
			if !fp.Equal(commit.Fingerprint) {
				e.Errorf("%s: %s says %q, commit says %q", key, by, fp, commit.Fingerprint)
			}
		}
		if len(found) != 4 {
			e.Errorf("%s: not in the recursive list", key)
		}
	}
}

func fingerprintStable(e *env) {
	st := e.put("f", pattern(50, 1000))
	e.wantContent("f", pattern(50, 1000)) // a read changes nothing
	e.put("beside", []byte("x"))
	for range 3 {
		if got := e.stat("f"); !got.Fingerprint.Equal(st.Fingerprint) || got.Length != st.Length {
			e.Errorf("nothing happened, yet %q became %q", st.Fingerprint, got.Fingerprint)
		}
	}
}

func fingerprintOverwrite(e *env) {
	seen := map[string]int{}
	for i := range 20 {
		st := e.put("f", pattern(byte(i), 512))
		text := st.Fingerprint.Content + ";" + st.Fingerprint.Change
		if first, ok := seen[text]; ok {
			e.Fatalf("versions %d and %d of the same size have the same fingerprint %q", first, i, st.Fingerprint)
		}
		seen[text] = i
	}
}

func fingerprintOutside(e *env) {
	out := e.outside()
	before := e.put("f", pattern(51, 512))
	e.must(out.Put("f", pattern(52, 512)))
	after := e.stat("f").Fingerprint
	if e.known(after).SameContent(before.Fingerprint) {
		e.Errorf("another program replaced the file, the fingerprint stayed %q", after)
	}
	if out.Rewrite != nil {
		e.must(out.Rewrite("f", pattern(53, 512)))
		if again := e.stat("f").Fingerprint; again.SameContent(after) {
			e.Errorf("another program rewrote the file in place, the fingerprint stayed %q", again)
		}
	}
	e.must(out.Remove("f"))
	e.wantAbsent("f")
}

// fingerprintAppend: what was there before is still there, and yet it is another
// version.
func fingerprintAppend(e *env) {
	out := e.outside()
	data := pattern(58, 1024)
	before := e.put("f", data[:512])
	if out.Rewrite == nil {
		e.must(out.Put("f", data))
	} else {
		e.must(out.Rewrite("f", data))
	}
	if after := e.stat("f"); after.Length != 1024 || after.Fingerprint.SameContent(before.Fingerprint) {
		e.Errorf("another program appended: %q became %q, length %d", before.Fingerprint, after.Fingerprint, after.Length)
	}
	_, _, err := e.open("f", ufs.OpenOptions{Want: before.Fingerprint, Length: -1})
	e.wantKind(err, freshet.KindStale)
}

func fingerprintRecreated(e *env) {
	before := e.put("f", pattern(54, 512))
	e.must(e.fs.Remove(e.ctx(), "f", ufs.RemoveOptions{}))
	if after := e.put("f", pattern(55, 512)); after.Fingerprint.SameContent(before.Fingerprint) {
		e.Errorf("removed and created anew, the fingerprint stayed %q", after.Fingerprint)
	}
}

func fingerprintMetadata(e *env) {
	touch := (func(string) error)(nil)
	if e.h.Outside != nil {
		touch = e.outside().Touch
	}
	if !e.feat.OwnerAndMode && touch == nil {
		e.lacks("Features.OwnerAndMode is false, and the storage's version does not tell metadata from content")
	}
	if touch != nil {
		before := e.put("touched", pattern(57, 512))
		e.must(touch("touched"))
		after := e.stat("touched").Fingerprint
		if !after.SameContent(before.Fingerprint) || after.SameMeta(before.Fingerprint) {
			e.Errorf("another program changed metadata: %q became %q, want the same content and other metadata", before.Fingerprint, after)
		}
	}
	if !e.feat.OwnerAndMode {
		return
	}
	before := e.put("f", pattern(56, 512))
	mode := uint32(0o600)
	changed, err := e.fs.SetAttr(e.ctx(), "f", ufs.Attr{Mode: &mode})
	e.must(err)
	if !changed.Fingerprint.SameContent(before.Fingerprint) || changed.Fingerprint.SameMeta(before.Fingerprint) {
		e.Errorf("chmod: %q became %q, want the same content and other metadata", before.Fingerprint, changed.Fingerprint)
	}
	if got := e.stat("f").Fingerprint; !got.Equal(changed.Fingerprint) {
		e.Errorf("setattr says %q, stat %q", changed.Fingerprint, got)
	}
	got, _, err := e.open("f", ufs.OpenOptions{Want: before.Fingerprint, Length: -1})
	e.must(err)
	if string(got) != string(pattern(56, 512)) {
		e.Error("other bytes after a chmod")
	}
	if _, err := e.write("f", []byte("y"), ufs.CreateOptions{IfMatch: before.Fingerprint}); err != nil {
		e.Errorf("a chmod makes IfMatch fail: %v", err)
	}
}

func fingerprintEncodes(e *env) {
	fp := e.put("f", []byte("x")).Fingerprint
	back, err := fingerprint.Decode(fp.Encode())
	e.must(err)
	if back != fp {
		e.Errorf("%q became %q on the wire", fp, back)
	}
}

// fingerprintSecondProcess: two clusters agree on what a version is.
func fingerprintSecondProcess(e *env) {
	if e.h.Again == nil {
		e.Fatal("the harness has no Again: give it or name this case in Exceptions")
	}
	other := e.h.Again(e.T, e.fs)
	e.Cleanup(func() { e.must(other.Close()) })
	mine := e.put("d/f", []byte("x"))
	theirs, err := other.Stat(e.ctx(), "d/f")
	e.must(err)
	if !theirs.Fingerprint.Equal(mine.Fingerprint) {
		e.Errorf("one says %q, the other %q", mine.Fingerprint, theirs.Fingerprint)
	}
	e.must(other.Remove(e.ctx(), "d/f", ufs.RemoveOptions{}))
	_, err = e.fs.Stat(e.ctx(), "d/f")
	e.wantKind(err, freshet.KindNotExist)
}
