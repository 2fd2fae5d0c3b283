package fingerprint_test

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet/fingerprint"
)

func local(change func(*fingerprint.LocalFile)) fingerprint.Fingerprint {
	s := fingerprint.LocalFile{
		Inode: 42, Size: 7, ModTime: time.Unix(1000, 5), ChangeTime: time.Unix(1000, 9), Owner: "alice", Group: "staff", Mode: 0o644,
	}
	if change != nil {
		change(&s)
	}
	return fingerprint.Local(s)
}

func TestLocalComparison(t *testing.T) {
	t.Parallel()
	base := local(nil)
	for name, tc := range map[string]struct {
		change        func(*fingerprint.LocalFile)
		content, meta bool
	}{
		"nothing":          {nil, true, true},
		"size":             {func(s *fingerprint.LocalFile) { s.Size++ }, false, true},
		"inode":            {func(s *fingerprint.LocalFile) { s.Inode++ }, false, true},
		"mtime by 1 ns":    {func(s *fingerprint.LocalFile) { s.ModTime = s.ModTime.Add(1) }, false, true},
		"ctime alone":      {func(s *fingerprint.LocalFile) { s.ChangeTime = s.ChangeTime.Add(1) }, false, true},
		"chmod":            {func(s *fingerprint.LocalFile) { s.ChangeTime, s.Mode = s.ChangeTime.Add(1), 0o600 }, true, false},
		"chown":            {func(s *fingerprint.LocalFile) { s.ChangeTime, s.Owner = s.ChangeTime.Add(1), "bob" }, true, false},
		"chgrp":            {func(s *fingerprint.LocalFile) { s.ChangeTime, s.Group = s.ChangeTime.Add(1), "dev" }, true, false},
		"chmod and write":  {func(s *fingerprint.LocalFile) { s.ModTime, s.Mode = s.ModTime.Add(1), 0o600 }, false, false},
		"another timezone": {func(s *fingerprint.LocalFile) { s.ModTime = s.ModTime.In(time.FixedZone("x", 3600)) }, true, true},
	} {
		got := local(tc.change)
		if got.SameContent(base) != tc.content || got.SameMeta(base) != tc.meta || got.Equal(base) != (tc.content && tc.meta) || got.SameContent(base) != base.SameContent(got) {
			t.Errorf("%s: content %v, meta %v, equal %v, want %v, %v", name, got.SameContent(base), got.SameMeta(base), got.Equal(base), tc.content, tc.meta)
		}
	}
	moved := local(func(s *fingerprint.LocalFile) { s.ChangeTime = s.ChangeTime.Add(1) })
	if !moved.Moved(base) || local(func(s *fingerprint.LocalFile) { s.Size++ }).Moved(base) || (fingerprint.Fingerprint{}).Moved(fingerprint.Fingerprint{}) {
		t.Error("Moved compares something else than known contents")
	}
}

func TestUnknownEqualsNothing(t *testing.T) {
	t.Parallel()
	unknown := []fingerprint.Fingerprint{
		{},
		{Meta: "none"},
		fingerprint.S3("", 5), fingerprint.S3(`""`, 5), fingerprint.S3(strings.Repeat("a", 129), 5), fingerprint.S3("a b", 5), fingerprint.S3("a;b", 5),
		fingerprint.S3("é", 5), fingerprint.S3(`W/"weak"`, 5), fingerprint.Azure(""), fingerprint.AzureBlob("", 5), fingerprint.AzureBlob(`W/"weak"`, 5),
	}
	for i, a := range unknown {
		if a.Known() || a.ETag() != "" {
			t.Errorf("%d: %q is known", i, a)
		}
		for _, b := range append(unknown, fingerprint.S3("x", 5)) {
			if a.SameContent(b) || b.SameContent(a) || a.Equal(b) {
				t.Errorf("%q equals %q", a, b)
			}
		}
	}
}

func TestStorages(t *testing.T) {
	t.Parallel()
	if !fingerprint.S3(`"abc-2"`, 5).Equal(fingerprint.S3("abc-2", 5)) {
		t.Error("the quotes of an ETag count")
	}
	for _, pair := range [][2]fingerprint.Fingerprint{
		{fingerprint.S3("abc", 5), fingerprint.S3("abc", 6)},
		{fingerprint.S3("abc", 5), fingerprint.S3("abd", 5)},
		{fingerprint.S3("abc", 5), fingerprint.Azure("abc")},
		{fingerprint.AzureBlob("abc", 5), fingerprint.AzureBlob("abc", 6)},
		{fingerprint.AzureBlob("abc", 5), fingerprint.AzureBlob("abd", 5)},
		{fingerprint.AzureBlob("abc", 5), fingerprint.Azure("abc")},
		{fingerprint.AzureBlob("abc", 5), fingerprint.S3("abc", 5)},
		{fingerprint.GCS(1, 1), fingerprint.GCS(2, 1)},
		{fingerprint.HDFS(1, 5, time.UnixMilli(9), ""), fingerprint.HDFS(2, 5, time.UnixMilli(9), "")},
		{fingerprint.HDFS(1, 5, time.UnixMilli(9), ""), fingerprint.HDFS(1, 5, time.UnixMilli(10), "")},
	} {
		if pair[0].SameContent(pair[1]) {
			t.Errorf("%q is %q", pair[0], pair[1])
		}
		if pair[0].ETag() == pair[1].ETag() || pair[0].Hash() == pair[1].Hash() {
			t.Errorf("%q and %q have the same ETag or hash", pair[0], pair[1])
		}
	}
	if a, b := fingerprint.GCS(1, 1), fingerprint.GCS(1, 2); !a.SameContent(b) || a.SameMeta(b) || a.ETag() != b.ETag() {
		t.Error("a metageneration changes the content")
	}
	if etag := fingerprint.S3("abc", 5).ETag(); len(etag) != 24 || etag[0] != '"' || etag[23] != '"' {
		t.Errorf("ETag %s", etag)
	}
}

func TestMetaKeepsNamesApart(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 33)
	seen := map[string][2]string{}
	for _, pair := range [][2]string{
		{"a", "b"},
		{"a,b", ""},
		{"a", "b,"},
		{"", "a,b"},
		{"", ""},
		{"a b", "c"},
		{"a\tb", "c"},
		{"a;b", "c"},
		{"ä", "c"},
		{long, "c"},
		{long + "n", "c"},
		{"#x", "c"},
		{hashedName(long), "c"},
		{"1000", "1000"},
	} {
		meta := fingerprint.PosixMeta(pair[0], pair[1], 0o644)
		if other, ok := seen[meta]; ok {
			t.Errorf("%q and %q both are %q", pair, other, meta)
		}
		seen[meta] = pair
	}
	if fingerprint.PosixMeta("a", "b", 0o644) == fingerprint.PosixMeta("a", "b", 0o4644) {
		t.Error("setuid does not count")
	}
}

// hashedName returns what stands for a long name, which a user could be called.
func hashedName(name string) string {
	owner, _, _ := strings.Cut(fingerprint.PosixMeta(name, "x", 0), ",")
	return owner
}

// checkForms asserts what must hold of every fingerprint that a constructor makes.
func checkForms(t *testing.T, f fingerprint.Fingerprint) {
	t.Helper()
	if len(f.String()) > fingerprint.MaxLen || len(f.Encode()) > fingerprint.MaxLen {
		t.Errorf("%d bytes of text, %d encoded: %q", len(f.String()), len(f.Encode()), f)
	}
	text, err := fingerprint.ParseText(f.String())
	if err != nil || text != f {
		t.Errorf("%q: text became %q, %v", f, text, err)
	}
	wire, err := fingerprint.Decode(f.Encode())
	if err != nil || wire != f {
		t.Errorf("%q: wire became %q, %v", f, wire, err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	var back fingerprint.Fingerprint
	if err := json.Unmarshal(b, &back); err != nil || back != f {
		t.Errorf("%q: JSON became %q, %v", f, back, err)
	}
	if f.Known() != f.SameContent(f) {
		t.Errorf("%q: known is %v, but it is the same as itself: %v", f, f.Known(), f.SameContent(f))
	}
}

// TestLongestFingerprintsFit: MaxLen holds whatever a storage says.
func TestLongestFingerprintsFit(t *testing.T) {
	t.Parallel()
	long, odd := strings.Repeat("x", 10_000), strings.Repeat("ü;, ", 1000)
	far := time.Unix(math.MinInt64/2, 999_999_999)
	for _, f := range []fingerprint.Fingerprint{
		{},
		{Meta: "none"},
		fingerprint.S3(strings.Repeat("e", 128), math.MinInt64), fingerprint.S3(long, math.MaxInt64), fingerprint.Azure(strings.Repeat("e", 128)), fingerprint.Azure(odd),
		fingerprint.AzureBlob(strings.Repeat("e", 128), math.MinInt64), fingerprint.AzureBlob(odd, 5),
		fingerprint.GCS(math.MinInt64, math.MinInt64),
		fingerprint.HDFS(math.MaxUint64, math.MinInt64, far, long), fingerprint.HDFS(math.MaxUint64, math.MinInt64, far, odd),
		fingerprint.HDFS(1, 2, far, fingerprint.PosixMeta(long, odd, math.MaxUint32)),
	} {
		checkForms(t, f)
	}
	for _, name := range []string{long, odd, strings.Repeat("n", 32), strings.Repeat("n", 33), strings.Repeat("n", 128), ""} {
		checkForms(t, fingerprint.Local(fingerprint.LocalFile{
			Inode: math.MaxUint64, Size: math.MinInt64, ModTime: far, ChangeTime: far, Owner: name, Group: name, Mode: math.MaxUint32,
		}))
	}
	checkForms(t, fingerprint.Local(fingerprint.LocalFile{}))
}

// TestTimesBeyondTheRangeOfNanoseconds: the nanoseconds of the year 2300 do not
// fit into 64 bits.
func TestTimesBeyondTheRangeOfNanoseconds(t *testing.T) {
	t.Parallel()
	at := time.Date(2300, 1, 1, 0, 0, 0, 0, time.UTC)
	wrapped := time.Unix(0, at.UnixNano())
	a := local(func(s *fingerprint.LocalFile) { s.ModTime = at })
	b := local(func(s *fingerprint.LocalFile) { s.ModTime = wrapped })
	if a.SameContent(b) {
		t.Errorf("%v and %v are the same time", at, wrapped)
	}
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", ";", ";;", "a", "a;b", "a;b;c;d", "a b;;", "a;;ü", "a;\x00;", "--", strings.Repeat("a", 255) + ";;", "a;b;c\n"} {
		if f, err := fingerprint.ParseText(s); !errors.Is(err, fingerprint.ErrSyntax) {
			t.Errorf("text %q: got %q, %v", s, f, err)
		}
	}
	for _, s := range []string{"-", ";;", "a"} {
		if f, err := fingerprint.Decode([]byte(s)); !errors.Is(err, fingerprint.ErrSyntax) {
			t.Errorf("wire %q: got %q, %v", s, f, err)
		}
	}
	var f fingerprint.Fingerprint
	if err := f.UnmarshalText([]byte("x")); err == nil || !f.IsZero() {
		t.Errorf("got %q, %v", f, err)
	}
}

func FuzzParseText(f *testing.F) {
	for _, seed := range []string{"-", "s3:5:abc;;none", "local:1:2:3.4;5.6;a,b,644", ";;x", "a;b;c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fp, err := fingerprint.ParseText(s)
		if err != nil {
			if !errors.Is(err, fingerprint.ErrSyntax) || !fp.IsZero() {
				t.Fatalf("%q: %q, %v", s, fp, err)
			}
			return
		}
		if fp.String() != s {
			t.Fatalf("%q was read as %q", s, fp)
		}
		checkForms(t, fp)
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("s3:5:abc;;none"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		fp, err := fingerprint.Decode(b)
		if err == nil && string(fp.Encode()) != string(b) {
			t.Fatalf("%q was read as %q", b, fp.Encode())
		}
	})
}

func FuzzConstructors(f *testing.F) {
	f.Add("etag", int64(1), "owner", uint32(0o644))
	f.Add(`W/"x"`, int64(-1), "a,b;c d", uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, tok string, n int64, name string, mode uint32) {
		at := time.Unix(n, n%1_000_000_000)
		checkForms(t, fingerprint.S3(tok, n))
		checkForms(t, fingerprint.Azure(tok))
		checkForms(t, fingerprint.AzureBlob(tok, n))
		checkForms(t, fingerprint.GCS(n, n))
		checkForms(t, fingerprint.HDFS(uint64(n), n, at, name))
		checkForms(t, fingerprint.Local(fingerprint.LocalFile{Inode: uint64(n), Size: n, ModTime: at, ChangeTime: at, Owner: name, Group: tok, Mode: mode}))
	})
}

func BenchmarkLocal(b *testing.B) {
	s := fingerprint.LocalFile{Inode: 123456, Size: 4096, ModTime: time.Unix(1700000000, 123456789), ChangeTime: time.Unix(1700000000, 123456789), Owner: "alice", Group: "staff", Mode: 0o644}
	b.ReportAllocs()
	for b.Loop() {
		if !fingerprint.Local(s).Known() {
			b.Fatal("unknown")
		}
	}
}
