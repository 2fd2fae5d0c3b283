package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/cli"
)

// What a listing says besides comes behind the document, and counts are words.
func TestMessagesLeaveDocumentsWhole(t *testing.T) {
	c := newCluster(t)
	var both bytes.Buffer
	env := map[string]string{"FRESHET_ADDR": c.addr}
	streams := cli.Streams{In: strings.NewReader(""), Out: &both, Err: &both, Getenv: func(k string) string { return env[k] }}
	cli.Run(t.Context(), []string{"fs", "ls", "/", "--limit", "1", "-o", "json"}, streams, nil)
	document, note, found := strings.Cut(both.String(), "stopped after 1 entry;")
	if !found || !json.Valid([]byte(document)) || !strings.Contains(note, "--start-after") {
		t.Errorf("the terminal shows %s", both.String())
	}
	if r := run(c, "", "fs", "chmod", "-R", "600", "/no"); strings.Count(r.err, "does not exist") != 1 {
		t.Errorf("one failure is told so: %s", r.err)
	}
	good, bad := filepath.Join(t.TempDir(), "good.yaml"), filepath.Join(t.TempDir(), "bad.yaml")
	if err := errors.Join(os.WriteFile(good, []byte("policies: [{path: /d, ttl: 2h}]\n"), 0o600), os.WriteFile(bad, []byte("polices: []\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r := run(nil, "", "config", "validate", good, bad, "-o", "json")
	var verdicts []struct {
		File, Error string
		OK          bool
	}
	if err := json.Unmarshal([]byte(r.out), &verdicts); err != nil || r.code != 2 || len(verdicts) != 2 || !verdicts[0].OK || verdicts[1].OK || verdicts[1].Error == "" {
		t.Errorf("exit %d, %s, %v", r.code, r.out, err)
	}
}

func TestAnInterruptedSyncIsCancelledAndSaysSo(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	asked := 0
	c.syncs.onAsk = func() {
		if asked++; asked == 3 {
			interrupt()
		}
	}
	var out, errOut bytes.Buffer
	streams := cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errOut, Getenv: func(k string) string { return map[string]string{"FRESHET_ADDR": c.addr}[k] }}
	code := cli.Run(ctx, []string{"sync", "now", "/d", "--recursive"}, streams, nil)
	if code != 5 || !strings.Contains(errOut.String(), "interrupted: cancelled sync 1 after") {
		t.Errorf("exit %d: %s", code, errOut.String())
	}
	if n := strings.Count(errOut.String(), "sync 1 running"); n != 1 {
		t.Errorf("%d lines of progress within a second: %s", n, errOut.String())
	}
	c.syncs.mu.Lock()
	defer c.syncs.mu.Unlock()
	if s := c.syncs.jobs[0].State; s != freshet.SyncCancelled {
		t.Errorf("the sync is %s", s)
	}
}

// trigger is a writer that calls f when a text is written.
type trigger struct {
	bytes.Buffer

	text string
	f    func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.text) {
		w.f()
	}
	return w.Buffer.Write(p)
}

func TestAnInterruptedRemovalSaysWhatIsGone(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	errOut := &trigger{text: "removing", f: interrupt}
	streams := cli.Streams{In: strings.NewReader(""), Out: &bytes.Buffer{}, Err: errOut, Getenv: func(k string) string { return map[string]string{"FRESHET_ADDR": c.addr}[k] }}
	code := cli.Run(ctx, []string{"fs", "rm", "-r", string(endlessPath)}, streams, nil)
	if code != 8 || !strings.Contains(errOut.String(), "stopped after 1000 entries") {
		t.Errorf("exit %d: %s", code, errOut.String())
	}
}
