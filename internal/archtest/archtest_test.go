package archtest

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestTreeFollowsTheMap(t *testing.T) {
	t.Parallel()
	breaches, err := projectMap().check(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range breaches {
		t.Error(b)
	}
}

// TestTreeIsSeen fails if the walk misses the tree, in which case no breach
// could be found either.
func TestTreeIsSeen(t *testing.T) {
	t.Parallel()
	files, err := readTree(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{root: true, "fingerprint": true, "invalidation": true, "ufs": true, "internal/archtest": true}
	for _, f := range files {
		delete(want, f.pkg)
		if strings.HasPrefix(f.pkg, "tools") || strings.HasSuffix(f.name, "_test.go") {
			t.Errorf("%s is not part of the product", f.name)
		}
	}
	for pkg := range want {
		t.Errorf("package %s was not seen", pkg)
	}
}

func TestMapKeepsTheHardTreesApart(t *testing.T) {
	t.Parallel()
	m := projectMap()
	for _, from := range hardTrees {
		for _, to := range hardTrees {
			if from != to && m.reaches(from, to) {
				t.Errorf("the map lets %s reach %s", from, to)
			}
		}
	}
	if !m.reaches("gateway/...", "rpc/...") || !m.reaches("coordinator/...", "ufs/...") {
		t.Error("reaches misses an edge that the map has")
	}
}

func TestPurePackagesReachOnlyPureOnes(t *testing.T) {
	t.Parallel()
	allowed := []string{"coordinator/kv", "proto/freshet/state/v1"} // an interface with a store in memory; messages
	m := projectMap()
	for pkg, r := range m.rules {
		if !r.pure {
			continue
		}
		for _, imp := range r.imports {
			if to, ok := m.ruleFor(imp); (!ok || !to.pure) && !matchesAny(allowed, imp) {
				t.Errorf("%s is pure and may import %s, which is not", pkg, imp)
			}
		}
	}
}

func TestCheckFindsBreaches(t *testing.T) {
	t.Parallel()
	const own = `"github.com/freshet-io/freshet`
	tests := []struct {
		name, file, src string
		want            string // part of the only breach; empty: none
	}{
		{"allowed", "coordinator/service.go", "package coordinator; import " + own + `/ufs"`, ""},
		{"allowed below", "coordinator/service.go", "package coordinator; import " + own + `/coordinator/kv/pebblekv"`, ""},
		{"root", "ufs/fs.go", "package ufs; import " + own + `"`, ""},
		{"hard edge", "coordinator/service.go", "package coordinator; import " + own + `/rpc"`, "coordinator may not import rpc"},
		{"hard edge from below", "cachenode/tier/disk.go", "package tier; import " + own + `/coordinator"`, "cachenode/tier may not import coordinator"},
		{"own tree is not allowed by itself", "ufs/s3/s3.go", "package s3; import " + own + `/ufs/local"`, "ufs/s3 may not import ufs/local"},
		{"longest rule counts", "coordinator/kv/kv.go", "package kv; import " + own + `/ufs"`, "coordinator/kv may not import ufs"},
		{"unknown package", "util/util.go", "package util", "package util is not in the import map"},
		{"unknown package with a known prefix", "ufsx/x.go", "package ufsx", "package ufsx is not in the import map"},
		{"third party at home", "ufs/s3/s3.go", `package s3; import "github.com/aws/aws-sdk-go-v2/service/s3"`, ""},
		{"third party elsewhere", "ufs/mem/mem.go", `package mem; import "github.com/aws/smithy-go"; import "github.com/awslabs/x"`, "only ufs/s3"},
		{"raft", "coordinator/lead.go", `package coordinator; import "github.com/hashicorp/raft"`, "only coordinator/journal"},
		{"raft store", "coordinator/lead.go", `package coordinator; import "github.com/hashicorp/raft-boltdb/v2"`, "only coordinator/journal"},
		{"pure: import", "invalidation/a.go", `package invalidation; import "log/slog"`, "invalidation is pure and may not import log/slog"},
		{"pure: goroutine", "freshet.go", "package freshet; func f() { go f() }", "line 1 starts a goroutine"},
		{"pure: clock", "fingerprint/a.go", "package fingerprint\nimport \"time\"\nvar x = time.Now", "line 3 uses time.Now"},
		{"pure: renamed clock", "fingerprint/a.go", `package fingerprint; import tm "time"; var x = tm.Since`, "uses time.Since"},
		{"pure: a type of package time", "fingerprint/a.go", `package fingerprint; import "time"; var x time.Duration`, ""},
		{"acting: clock", "ufs/a.go", `package ufs; import "time"; var x = time.Now; func f() { go f() }`, ""},
		{"any build constraint", "rpc/a.go", "//go:build plan9\n\npackage rpc; import " + own + `/cachenode"`, "rpc may not import cachenode"},
		{"test file", "rpc/a_test.go", "package rpc; import " + own + `/cachenode"`, ""},
		{"testdata", "rpc/testdata/a.go", "package rpc; import " + own + `/cachenode"`, ""},
		{"command", "cmd/freshet/demo/demo.go", "package demo; import " + own + `/cachenode"; import "github.com/spf13/cobra"`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := projectMap().check(fstest.MapFS{tt.file: {Data: []byte(tt.src)}})
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && len(got) != 0 || tt.want != "" && (len(got) != 1 || !strings.Contains(got[0], tt.want)) {
				t.Errorf("breaches %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheckLeavesOtherModulesAlone(t *testing.T) {
	t.Parallel()
	tree := fstest.MapFS{
		"test/backends/go.mod":  {Data: []byte("module x")},
		"unknown/nested/go.mod": {Data: []byte("module y")},
		"unknown/nested/a.go":   {Data: []byte("package a")},
	}
	if got, err := projectMap().check(tree); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
	delete(tree, "unknown/nested/go.mod")
	if got, err := projectMap().check(tree); err != nil || len(got) != 1 {
		t.Errorf("without its go.mod the package must be found: %q, %v", got, err)
	}
}

func TestCheckReportsUnreadableFiles(t *testing.T) {
	t.Parallel()
	if _, err := projectMap().check(fstest.MapFS{"ufs/a.go": {Data: []byte("package")}}); err == nil {
		t.Error("a file that does not parse was accepted")
	}
}
