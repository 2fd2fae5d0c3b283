package scrape_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/freshet-io/freshet/cmd/freshet/scrape"
)

// TestWhatTheClientWritesIsRead uses the library that the servers use.
func TestWhatTheClientWritesIsRead(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	reads := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "reads_total", Help: "With a \"quote\"\nand a line."}, []string{"source", "node"})
	seconds := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "seconds", Help: "Of a look.", Buckets: []float64{1, 2}})
	reg.MustRegister(reads, seconds)
	reads.WithLabelValues("hit", "a\\b\"c\nd,e}").Add(3)
	reads.WithLabelValues("ufs", "n2").Add(1.5e9)
	seconds.Observe(1.5)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	got, err := scrape.Parse(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got.Sum("reads_total") != 1.5e9+3 || got.Sum("reads_total", "source", "hit") != 3 || got.Sum("reads_total", "source", "hit", "node", "n2") != 0 || got.Sum("none") != 0 {
		t.Errorf("%+v", got)
	}
	if got.Sum("reads_total", "node", "a\\b\"c\nd,e}") != 3 {
		t.Errorf("labels: %+v", got["reads_total"])
	}
	if got.Sum("seconds_count") != 1 || got.Sum("seconds_bucket", "le", "1") != 0 || got.Sum("seconds_bucket", "le", "+Inf") != 1 {
		t.Errorf("histogram: %+v", got)
	}
	for _, bad := range []string{"x", "x y", "x{a=\"b} 1", "x{a} 1", "{} 1", "x{a=\"b\"}"} {
		if _, err := scrape.Parse(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("# HELP a b\na{b=\"c\\\"\",d=\"e\"} 1 1234\nx NaN\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := scrape.Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for name, all := range got {
			if name == "" || len(all) == 0 {
				t.Errorf("%q: %+v", name, all)
			}
		}
	})
}
