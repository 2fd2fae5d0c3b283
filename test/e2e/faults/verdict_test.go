package faults_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
)

type pending struct {
	Count, Queued, Failed, Conflicts, Lost int `json:",string"`
	Files                                  []struct{ Path, State, Error string }
}

// unpersisted asks which files are not in the storage.
func unpersisted(ctx context.Context, r *e2e.Region) (pending, error) {
	var p pending
	out, code := command(ctx, r, "persist", "status", "-o", "json")
	if code != 0 {
		return p, fmt.Errorf("exit code %d: %s", code, out)
	}
	return p, json.Unmarshal([]byte(out), &p)
}

// have returns the versions that a region, or the storage if r is nil, has at the
// places where a file may be; absent ones are left out.
func (l *lake) have(ctx context.Context, r *e2e.Region, f *file) (map[freshet.Path]uint64, error) {
	out := map[freshet.Path]uint64{}
	for _, p := range []freshet.Path{f.path, f.doubt.path} {
		if p == "" {
			continue
		}
		var data []byte
		var err error
		exists := true
		if r == nil {
			data, exists, err = l.stored(ctx, p)
		} else if data, _, err = r.Read(ctx, string(p[1:]), client.Whole()); freshet.IsKind(err, freshet.KindNotExist) {
			exists, err = false, nil
		}
		if err != nil {
			return nil, err
		}
		if !exists {
			continue
		}
		v, err := e2e.VersionOf(f.id, 0, data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		if v > f.issued || !bytes.Equal(data, f.content(v)) {
			return nil, fmt.Errorf("%s: %d bytes of version %d", p, len(data), v)
		}
		out[p] = v
	}
	return out, nil
}

// allowed returns what is wrong with what was found of a file.
func (f *file) allowed(have map[freshet.Path]uint64) error {
	if f.removed && len(have) > 0 {
		return fmt.Errorf("it was removed, and there is %v", have)
	}
	if len(have) == 0 && f.acked > 0 && !f.removed && !f.doubt.removed {
		return fmt.Errorf("version %d (%s) was acknowledged, and nothing is there", f.acked, f.write)
	}
	for p, v := range have {
		if err, ok := f.refused[v]; ok {
			return fmt.Errorf("%s has version %d, of which was said: %w", p, v, err)
		}
		if v != f.acked && v != f.doubt.version {
			return fmt.Errorf("%s has version %d, and %d (%s) was acknowledged", p, v, f.acked, f.write)
		}
	}
	return nil
}

// verdict holds regions to what the writers know. Once everything is persisted,
// elsewhere is the other regions and the storage too.
func (l *lake) verdict(t *testing.T, writers []*writer, elsewhere bool) {
	t.Helper()
	certain, doubtful := 0, 0
	for _, w := range writers {
		for _, f := range w.all {
			if f.doubt == (doubt{}) {
				certain++
			} else {
				doubtful++
			}
			where := []*e2e.Region{f.owner}
			if elsewhere {
				where = append(l.regions(), nil)
			}
			for _, r := range where {
				name := "the storage"
				if r != nil {
					name = r.Name
				}
				err := fleet.Poll(t.Context(), e2e.Patience, "what is known of "+f.id, func(ctx context.Context) error {
					have, err := l.have(ctx, r, f)
					if err == nil {
						err = f.allowed(have)
					}
					return err
				})
				if err != nil {
					t.Errorf("%s, in %s: %v", f.path, name, err)
				}
			}
		}
	}
	t.Logf("%d files of known state, %d of a doubtful one", certain, doubtful)
}

// cleanTiers waits until the directories of caches hold no unfinished blocks and no
// promises.
func cleanTiers(t *testing.T, dir string) {
	t.Helper()
	e2e.Seen(t, "no temporary files and no holds in the caches", func(context.Context) error {
		for _, pattern := range []string{"*/tmp/*", "*/held/*"} {
			left, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil || len(left) > 0 {
				return fmt.Errorf("%q, %w", left, err)
			}
		}
		return nil
	})
}

// shortDir is a directory with a short name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ff-") //nolint:usetesting // t.TempDir has the test's long name
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // temporary
	return dir
}
