// Package tools_test runs the operator's tools of the data path against real
// processes.
package tools_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// sum is what `cache stat` says.
type sum struct {
	Files, CachedFiles, Blocks, CachedBlocks, Bytes, CachedBytes int64 `json:",string"`
	CachedRatio                                                  float64
	Nodes                                                        []struct {
		Node  string
		Bytes int64 `json:",string"`
	}
}

// warm is what `cache warm` and `cache status` say.
type warm struct {
	ID                                                 string
	State, Error                                       string
	Counted                                            bool
	TotalFiles, TotalBytes, Files, CachedBytes, Warmed string
	WarmedBytes, Failed                                string
	Failures                                           []struct{ Path, Error string }
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, r *e2e.Region, args ...string) sum {
	t.Helper()
	var s sum
	r.CLI(t, append([]string{"cache", "stat", "-o", "json"}, args...)...).Want(t, 0).JSON(t, &s)
	return s
}

// metric adds up a metric of all nodes, such as freshet_reads_total{source="ufs"}.
func metric(t *testing.T, r *e2e.Region, name string) (total int64) {
	t.Helper()
	for _, addr := range r.NodeHTTP {
		body := e2e.HTTP(t, "GET", "http://"+addr+"/metrics", "").Body
		m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` ([0-9.e+]+)$`).FindStringSubmatch(body)
		if m == nil {
			t.Fatalf("no %s at %s", name, addr)
		}
		f, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		total += int64(f)
	}
	return total
}

func name(i int) string { return fmt.Sprintf("d%d/f%03d.bin", i%3, i) }
