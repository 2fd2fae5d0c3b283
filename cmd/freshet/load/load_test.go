package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet/cmd/freshet/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTracesAreRead(t *testing.T) {
	t.Parallel()
	got, err := load.ParseTrace(strings.NewReader("# a trace\n\n0 read /a 0 100\n 0.5\tread  /a 100 -1\n1 stat \"/b c\\\"d\"\n1 list /\n2.25 write /w 0 7\n3 read /w\n"))
	want := []load.Record{
		{0, load.Read, "/a", 0, 100},
		{500 * time.Millisecond, load.Read, "/a", 100, -1},
		{time.Second, load.Stat, `/b c"d`, 0, -1},
		{time.Second, load.List, "/", 0, -1},
		{2250 * time.Millisecond, load.Write, "/w", 0, 7},
		{3 * time.Second, load.Read, "/w", 0, -1},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	if sizes := load.Sizes(got); !reflect.DeepEqual(sizes, map[string]int64{"/a": 100, `/b c"d`: 0}) {
		t.Errorf("sizes %v", sizes)
	}
	for text, says := range map[string]string{
		"":                                       "no records",
		"# nothing":                              "no records",
		"x read /a":                              "line 1: \"x\" is not a time",
		"NaN read /a":                            "not a time",
		"-1 read /a":                             "not a time",
		"1e300 read /a":                          "not a time",
		"0 reed /a":                              "not an operation",
		"0 read":                                 "path is missing",
		"0 read \"/a":                            "quotes",
		"0 read /a 1":                            "1 fields follow",
		"0 stat /a 0 1":                          "2 fields follow",
		"0 read /a x 1":                          "not an offset",
		"0 read /a 0 x":                          "not a length",
		"0 read /a 1 9223372036854775807":        "not a length",
		"0 write /a":                             "needs the offset 0",
		"0 write /a 5 1":                         "needs the offset 0",
		"1 stat /a\n0 stat /b":                   "line 2: its time is before",
		"0 read /" + strings.Repeat("x", 20_000): "longer than",
	} {
		if _, err := load.ParseTrace(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.40q: %v, want %q", text, err, says)
		}
	}
}

func FuzzTrace(f *testing.F) {
	f.Add("0 read /a 0 100\n1 stat \"/b c\"\n")
	f.Add("0.5 write \"\\x00\" 0 7")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := load.ParseTrace(strings.NewReader(text))
		if err != nil {
			return
		}
		var b strings.Builder
		for _, r := range all {
			fmt.Fprintf(&b, "%.9f %s %q", r.At.Seconds(), r.Kind, r.Path)
			if r.Kind == load.Read || r.Kind == load.Write {
				fmt.Fprintf(&b, " %d %d", r.Offset, r.Length)
			}
			b.WriteByte('\n')
		}
		again, err := load.ParseTrace(strings.NewReader(b.String()))
		if err != nil || len(again) != len(all) {
			t.Fatalf("%q was read, and not when it was written anew as %q: %v", text, b.String(), err)
		}
		for i := range all {
			all[i].At, again[i].At = 0, 0 // rounded
			if all[i] != again[i] {
				t.Fatalf("%+v became %+v", all[i], again[i])
			}
		}
	})
}

func TestOperationsAreCounted(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	reported := sync.OnceFunc(func() { close(hold) })
	r := load.Run(t.Context(), load.Options{Threads: 4, Ops: 100, Report: func(load.Result) { reported() }}, func(_ context.Context, n int64) (load.Op, error) {
		switch {
		case n == 99:
			<-hold // until it was reported
		case n%10 == 0:
			return load.Op{}, errors.New("it is a tenth")
		}
		return load.Op{Bytes: 10, Origin: []string{"hit", "ufs", "remote"}[n%3]}, nil
	})
	if r.Ops != 90 || r.Errors != 10 || r.Bytes != 900 || len(r.Failures) != 1 || r.Failures[0] != "it is a tenth" {
		t.Errorf("%+v", r)
	}
	if r.Origins["hit"].Ops+r.Origins["ufs"].Ops+r.Origins["remote"].Ops != 90 || r.HitRatio == nil || *r.HitRatio < 0.6 || *r.HitRatio > 0.7 || *r.ByteHitRatio != *r.HitRatio {
		t.Errorf("%+v, hit ratio %v", r.Origins, r.HitRatio)
	}
	if r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max || r.OpsPerSecond <= 0 {
		t.Errorf("%+v", r)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r = load.Run(ctx, load.Options{Threads: 2, Duration: time.Hour}, func(ctx context.Context, n int64) (load.Op, error) {
		if n == 10 {
			cancel()
		}
		return load.Op{}, ctx.Err()
	})
	if r.Errors != 0 || r.Ops > 11 || r.HitRatio != nil {
		t.Errorf("what was cut off counts: %+v", r)
	}
}

func TestQuantilesAreClose(t *testing.T) {
	t.Parallel()
	var l load.Latencies
	for i := range 1000 {
		l.Add(time.Duration(i+1) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second, 0: time.Millisecond} {
		if got := l.Quantile(q); got < want || float64(got) > 1.04*float64(want) {
			t.Errorf("quantile %v is %s, want %s", q, got, want)
		}
	}
	l.Add(1 << 62)
	l.Add(0)
	if l.Quantile(1) != 1<<62 || (&load.Latencies{}).Quantile(0.5) != 0 {
		t.Error("the ends are wrong")
	}
}

func TestContentIsItsSeeds(t *testing.T) {
	t.Parallel()
	a, _ := io.ReadAll(load.Content(1, 10_001))
	again, _ := io.ReadAll(load.Content(1, 10_001))
	b, _ := io.ReadAll(load.Content(2, 10_001))
	if len(a) != 10_001 || !bytes.Equal(a, again) || bytes.Equal(a, b) || bytes.Equal(a[:512], a[512:1024]) {
		t.Error("contents are not as long, as stable or as different as they should be")
	}
}
