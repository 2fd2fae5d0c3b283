package freshet_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
)

func TestIntervals(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]freshet.Interval{
		"always": freshet.Always, "0": freshet.Always, "0s": freshet.Always, "never": freshet.Never, "-1": freshet.Never,
		"90s": freshet.Interval(90 * time.Second), "1ns": 1, "87600h": freshet.MaxInterval,
	} {
		got, err := freshet.ParseInterval(in)
		if err != nil || got != want {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
		if back, err := freshet.ParseInterval(got.String()); err != nil || back != got {
			t.Errorf("%q: %q is read as %v, %v", in, got, back, err)
		}
	}
	for _, in := range []string{"", "-5s", "1e9h", "5 parsecs", "87601h", "-2", "NaN", "Never", " 5s", "9999999999999h"} {
		if got, err := freshet.ParseInterval(in); !freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), "sync interval") {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
	for _, tc := range []struct {
		i    freshet.Interval
		age  time.Duration
		want bool
	}{
		{freshet.Always, 0, true},
		{freshet.Always, time.Hour, true},
		{freshet.Never, math.MaxInt64, false},
		{freshet.Interval(time.Second), time.Second - 1, false},
		{freshet.Interval(time.Second), time.Second, true},
	} {
		if tc.i.Expired(tc.age) != tc.want {
			t.Errorf("%v after %v: expired is %v", tc.i, tc.age, !tc.want)
		}
	}
	var v struct{ I freshet.Interval }
	if err := json.Unmarshal([]byte(`{"I":"5m"}`), &v); err != nil || v.I != freshet.Interval(5*time.Minute) {
		t.Errorf("JSON: %v, %v", v, err)
	}
	if err := json.Unmarshal([]byte(`{"I":"x"}`), &v); err == nil {
		t.Error("JSON takes anything")
	}
	if b, err := json.Marshal(v); err != nil || string(b) != `{"I":"5m0s"}` {
		t.Errorf("JSON: %s, %v", b, err)
	}
}

func FuzzParseInterval(f *testing.F) {
	for _, seed := range []string{"always", "never", "90s", "-1", "1e9h", "0.5ns"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		i, err := freshet.ParseInterval(s)
		if err != nil {
			return
		}
		if back, err := freshet.ParseInterval(i.String()); err != nil || back != i || i > freshet.MaxInterval {
			t.Fatalf("%q is %v is %v (%v)", s, i, back, err)
		}
	})
}

func TestWords(t *testing.T) {
	t.Parallel()
	for i, word := range []string{"cache_through", "through", "must_cache", "async_through"} {
		if w, err := freshet.ParseWriteType(word); err != nil || w != freshet.WriteType(i) || w.String() != word {
			t.Errorf("%q: %v, %v", word, w, err)
		}
	}
	for i, word := range []string{"cache", "no_cache"} {
		if r, err := freshet.ParseReadType(word); err != nil || r != freshet.ReadType(i) || r.String() != word {
			t.Errorf("%q: %v, %v", word, r, err)
		}
	}
	for i, word := range []string{"invalidate", "interval", "bounded", "strict"} {
		if l, err := freshet.ParseLevel(word); err != nil || l != freshet.Level(i) || l.String() != word {
			t.Errorf("%q: %v, %v", word, l, err)
		}
	}
	w, werr := freshet.ParseWriteType("")
	r, rerr := freshet.ParseReadType("")
	l, lerr := freshet.ParseLevel("")
	if w != freshet.ByPolicy || w.String() != "" || r != freshet.ReadCache || l != freshet.LevelInvalidate || werr != nil || rerr != nil || lerr != nil {
		t.Errorf("defaults are %v, %v, %v", w, r, l)
	}
	_, werr = freshet.ParseWriteType("x")
	_, rerr = freshet.ParseReadType("x")
	_, lerr = freshet.ParseLevel("x")
	for _, err := range []error{werr, rerr, lerr} {
		if !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("got %v", err)
		}
	}
	if got := freshet.Level(9).String(); got != "unknown(9)" {
		t.Errorf("got %q", got)
	}
	if freshet.TypeFile.String() != "file" || freshet.TypeDirectory.String() != "directory" {
		t.Error("types of entries have other names")
	}
	if id := (freshet.OpID{0xab, 15: 1}); id.String() != "ab000000000000000000000000000001" || id.IsZero() || !(freshet.OpID{}).IsZero() {
		t.Errorf("got %q", id)
	}
}

func token() freshet.Token {
	return freshet.Token{Cluster: uuid.MustParse("0190163d-8694-739b-aea5-966c26f8ad91"), Epoch: 3, Domain: freshet.DomainID{1, 2, 3}, Seq: 123_456}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	largest := token()
	largest.Epoch, largest.Seq = math.MaxUint64, math.MaxUint64
	for _, tok := range []freshet.Token{{}, token(), largest, {Seq: 1}, {Epoch: 1}} {
		s := tok.String()
		back, err := freshet.ParseToken(s)
		if err != nil || back != tok || len(s) > 72 || tok.IsZero() != (s == "") {
			t.Errorf("%+v: %q is read as %+v, %v", tok, s, back, err)
		}
	}
}

func TestMalformedTokensAreRefused(t *testing.T) {
	t.Parallel()
	good := token().String()
	for _, s := range []string{
		"x", " ", good + "A", good[:len(good)-2], good + "=", "\n" + good, good + "\n", strings.Repeat("A", 48), strings.Repeat("A", 10_000), "AA" + good[2:], good[:20] + "!" + good[21:],
	} {
		if tok, err := freshet.ParseToken(s); !freshet.IsKind(err, freshet.KindInvalid) || !tok.IsZero() || !strings.Contains(err.Error(), "malformed session token") {
			t.Errorf("%.60q: got %+v, %v", s, tok, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(token().String())
	f.Add("")
	f.Add("AQ")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := freshet.ParseToken(s)
		if err == nil && tok.String() != s {
			t.Fatalf("%q was read as %q", s, tok)
		}
	})
}
