package metered_test

import (
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/metered"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func newFS(t *testing.T, reg prometheus.Registerer, inner ufs.FS) ufs.FS {
	t.Helper()
	m, err := metered.NewMetrics(reg)
	if err != nil {
		t.Fatal(err)
	}
	return metered.New(inner, m)
}

func TestConforms(t *testing.T) {
	ufstest.Run(t, ufstest.InMemory(mem.Local, func(t *testing.T, fs ufs.FS) ufs.FS { return newFS(t, prometheus.NewRegistry(), fs) }))
}

func inFlight(t *testing.T, reg *prometheus.Registry, want float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "freshet_ufs_in_flight" {
			if got := family.GetMetric()[0].GetGauge().GetValue(); got != want {
				t.Errorf("%v in flight, want %v", got, want)
			}
			return
		}
	}
	t.Error("freshet_ufs_in_flight is missing")
}

func TestCounts(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	fs := newFS(t, reg, mem.New(mem.Options{}).FS(""))
	ctx := t.Context()
	w, err := fs.Create(ctx, "f", ufs.CreateOptions{Size: 5})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "hello"); err != nil {
		t.Fatal(err)
	}
	inFlight(t, reg, 1)
	if _, err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"f", "none", "none"} {
		_, _ = fs.Stat(ctx, key) // its outcome is what is counted
	}
	r, _, err := fs.Open(ctx, "f", ufs.OpenOptions{Offset: 1, Length: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	inFlight(t, reg, 1)
	_ = r.Close()
	_ = r.Close() // counts once
	for _, err := range fs.List(ctx, "", ufs.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "freshet_ufs_")
			for _, label := range metric.GetLabel() {
				if label.GetName() != "kind" {
					name += " " + label.GetValue()
				}
			}
			got[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"in_flight": 0, "requests_total ok commit": 1, "requests_total ok create": 1, "requests_total ok list": 1, "requests_total ok open": 1,
		"requests_total not_exist stat": 2, "requests_total ok stat": 1, "bytes_total read": 4, "bytes_total write": 5,
		"request_seconds commit": 1, "request_seconds create": 1, "request_seconds list": 1, "request_seconds open": 1, "request_seconds stat": 3,
	}
	if !maps.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}
