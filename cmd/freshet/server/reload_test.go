package server_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/cmd/freshet/server"
	"github.com/freshet-io/freshet/config"
)

func TestReloadSetsWhatCanChange(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "c.yaml")
	write := func(engine string) {
		text := "cluster: eu\nnode: {name: c1, data_dir: /tmp/c1}\n" + engine
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	p := server.NewProcess(config.Log{}, &log, os.Getenv)
	var got []config.SyncEngine
	p.OnReload("sync_engine", func(f *config.File) { got = append(got, f.SyncEngine) })
	opts := config.ValidateOptions{Name: name, Role: config.RoleCoordinator}
	for _, text := range []string{"sync_engine: {parallel: 7, per_mount: 3}\n", "", "sync_engine: {parallel: -1}\n", "sync_engine: {parallels: 7}\n"} {
		write(text)
		p.ReloadOnce(t.Context(), name, opts)
	}
	want := []config.SyncEngine{{Parallel: 7, PerMount: 3}, {Parallel: config.DefaultParallel, PerMount: config.DefaultPerMount}}
	if len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("set %+v, want %+v", got, want)
	}
	if n := strings.Count(log.String(), "the configuration was not reloaded"); n != 2 {
		t.Errorf("%d of two mistakes were told:\n%s", n, log.String())
	}
	if !strings.Contains(log.String(), "log.level, sync_engine") {
		t.Errorf("the log does not say what was reloaded:\n%s", log.String())
	}
}
