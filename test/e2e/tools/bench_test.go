package tools_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/cmd/freshet/scrape"
	"github.com/freshet-io/freshet/test/e2e"
)

// report is what a measurement says.
type report struct {
	Ops, Errors, Bytes           int64 `json:",string"`
	OpsPerSecond, BytesPerSecond float64
	Latency                      struct{ P50, P99, Max float64 }
	Origins                      map[string]struct {
		Ops, Bytes int64 `json:",string"`
	}
	HitRatio, ByteHitRatio *float64
	Failures               []string
}

// TestMeasurementsLeaveNothingBehind runs each measurement against real processes.
func TestMeasurementsLeaveNothingBehind(t *testing.T) {
	dir := t.TempDir()
	for i := range 6 {
		write(t, dir, name(i), e2e.Content(name(i), 1, 300_000))
	}
	w := e2e.NewBareWorld(t, e2e.Dir(dir), nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 2})
	a := w.A
	a.Mount(t, "/lake", "file://"+dir, nil)
	bench := func(code int, args ...string) (r report) {
		t.Helper()
		a.CLI(t, append([]string{"bench", "-o", "json"}, args...)...).Want(t, code).JSON(t, &r)
		return r
	}
	r := bench(0, "write", "/lake", "--files", "20", "--size", "100KiB", "--threads", "4")
	if r.Ops != 20 || r.Bytes != 20*102400 || r.OpsPerSecond <= 0 || r.Latency.P50 <= 0 || r.Latency.P99 < r.Latency.P50 || r.Origins != nil {
		t.Errorf("write: %+v", r)
	}
	r = bench(0, "read", "/lake", "--cold", "--ops", "6", "--duration", "0", "--threads", "2")
	if r.Ops != 6 || r.Bytes != 6*300_000 || r.Origins["ufs"].Ops != 6 || r.HitRatio == nil || *r.HitRatio != 0 {
		t.Errorf("cold: %+v", r)
	}
	r = bench(0, "read", "/lake", "--hot", "--ops", "100", "--random", "--read-size", "4KiB")
	if r.Ops != 100 || r.Bytes > 100*4096 || r.Origins["ufs"].Ops != 0 || *r.HitRatio != 1 || *r.ByteHitRatio != 1 {
		t.Errorf("hot and random: %+v", r)
	}
	wantLeases(t, a, bench)
	r = bench(0, "read", "/lake/d0", "--ops", "150", "--read-size", "4KiB")
	if r.Ops != 150 || r.Bytes != 2*300_000+2*4096 { // each of two files once, and its first piece again
		t.Errorf("sequential: %+v", r)
	}
	r = bench(0, "read", "/lake", "--make", "--files", "3", "--size", "1MiB", "--ops", "3")
	if r.Ops != 3 || r.Bytes != 3<<20 {
		t.Errorf("of its own files: %+v", r)
	}
	trace := e2e.File(t, "t.trace", []byte("# mine\n0 stat /d0/f000.bin\n0 read /d0/f000.bin 0 1000\n0.01 list /d0\n0.02 read /d1/f001.bin 4096 -1\n0.03 write /new/w 0 5000\n0.5 read /new/w\n"))
	r = bench(0, "trace", trace, "--root", "/lake", "--threads", "1")
	if r.Ops != 6 || r.Errors != 0 || r.Bytes != 1000+(300_000-4096)+5000+5000 || r.Latency.P99 > 0.45 {
		t.Errorf("trace: %+v", r)
	}
	var many strings.Builder
	for i := range 40 {
		fmt.Fprintf(&many, "0 write /new/w%d 0 %d\n0 read /new/w%d\n0 stat /new/w%d\n0 read /new/w%d 0 10\n", i%8, 1000+i, i%8, i%8, i%8)
	}
	r = bench(0, "trace", e2e.File(t, "many.trace", []byte(many.String())), "--root", "/lake", "--threads", "16", "--speed", "0")
	if r.Ops != 160 || r.Errors != 0 {
		t.Errorf("reads of what the trace writes, as fast as may be: %+v", r)
	}
	made := e2e.File(t, "m.trace", []byte("0 read /x/a 0 100000\n1 read /x/a 0 100000\n2 read \"/y/b c\" 50000 50000\n"))
	r = bench(0, "trace", made, "--root", "/lake", "--make", "--speed", "0", "--threads", "1")
	if r.Ops != 3 || r.Bytes != 250_000 || r.HitRatio == nil {
		t.Errorf("of made files: %+v", r)
	}
	dirs := e2e.File(t, "dirs.trace", []byte("0 list /d0\n0 write /only/here/w 0 10\n0 write /d0/w 0 10\n1 list /only/here\n1 stat /only\n1 list /d0\n1 list /\n"))
	for _, more := range [][]string{nil, {"--make"}} {
		r = bench(0, append([]string{"trace", dirs, "--root", "/lake", "--speed", "0", "--threads", "8"}, more...)...)
		if r.Ops != 7 || r.Errors != 0 {
			t.Errorf("of directories that the trace writes in, %q: %+v", more, r)
		}
	}
	r = bench(8, "trace", made, "--root", "/lake", "--speed", "0")
	if r.Errors != 3 || len(r.Failures) == 0 {
		t.Errorf("of files that are not there: %+v", r)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"write", "/lake", "--dry-run"}, 0, "dry run"},
		{[]string{"read", "/lake", "--dry-run"}, 0, "6 files"},
		{[]string{"trace", trace, "--root", "/lake", "--dry-run"}, 0, "6 records"},
		{[]string{"write", "/none"}, 3, ""},
		{[]string{"write", "/lake", "--size", "big"}, 2, "not a size"},
		{[]string{"write", "/lake", "--files", "0"}, 2, "--files"},
		{[]string{"read", "/lake", "--threads", "0"}, 2, "--threads"},
		{[]string{"read", "/lake", "--hot", "--cold"}, 2, "exclude"},
		{[]string{"read", "/lake", "--random"}, 2, "--read-size"},
		{[]string{"read", "/lake", "--duration", "0"}, 2, "an end"},
		{[]string{"trace", "/no/such/file"}, 2, "no such file"},
		{[]string{"trace", e2e.File(t, "bad", []byte("0 read /a\nx"))}, 2, "line 2"},
	} {
		a.CLI(t, append([]string{"bench"}, c.args...)...).Want(t, c.code, c.says)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{"d0", "d1", "d2"}) {
		t.Errorf("left behind: %q", names)
	}
}

// wantLeases measures reads with leases and without.
func wantLeases(t *testing.T, a *e2e.Region, bench func(code int, args ...string) report) {
	t.Helper()
	metric := func(name string) float64 {
		t.Helper()
		all, err := scrape.Parse(strings.NewReader(e2e.HTTP(t, "GET", "http://"+a.HTTP[0]+"/metrics", "").Want(t, 200).Body))
		if err != nil {
			t.Fatal(err)
		}
		return all.Sum(name)
	}
	const grants = "freshet_lease_grants_total"
	args := []string{"read", "/lake", "--duration", "2s", "--random", "--read-size", "4KiB"}
	before := metric(grants)
	r := bench(0, args...)
	kept := metric(grants)
	if kept == before {
		t.Errorf("no answer was kept for %d reads", r.Ops)
	}
	for _, what := range []string{"freshet_lease_sessions", "freshet_leases"} {
		if n := metric(what); n != 0 { // the session was ended in order
			t.Errorf("%s is %v", what, n)
		}
	}
	if r = bench(0, append(args, "--no-leases")...); r.Ops == 0 || metric(grants) != kept {
		t.Errorf("%d reads without leases kept %v answers", r.Ops, metric(grants)-kept)
	}
}
