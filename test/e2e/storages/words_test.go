package storages_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/e2e"
)

// TestErrorsSayThingsOnce makes the usual mistakes with the paths of every kind of
// storage, and wants from the command line one reason in words of its own.
func TestErrorsSayThingsOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			p := k.start(t)
			w := e2e.NewBareWorld(t, p.storage, p.env, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
			w.A.Mount(t, "/m", p.uri, p.options)
			w.A.CLI(t, "fs", "mkdir", "/m/d").Want(t, 0)
			for _, to := range []string{"/m/d/f", "/m/gone"} {
				w.A.CLI(t, "fs", "cp", "file:"+file, to).Want(t, 0)
			}
			if err := p.storage.Delete(t.Context(), "gone"); err != nil {
				t.Fatal(err)
			}
			for args, code := range map[string]int{
				"fs stat /m/none":                  freshet.ExitNotFound,
				"fs ls /m/none":                    freshet.ExitNotFound,
				"fs cat /m/d/f/below":              freshet.ExitNotFound,
				"fs rm /m/none":                    freshet.ExitNotFound,
				"fs rm -r /m/none":                 freshet.ExitNotFound,
				"fs rm /m/gone":                    freshet.ExitNotFound,
				"fs mv /m/none /m/other":           freshet.ExitNotFound,
				"fs mv /m/d/f /m/no/f":             freshet.ExitNotFound,
				"fs mkdir /m/no/d":                 freshet.ExitNotFound,
				"fs rm /m/d":                       freshet.ExitConflict,
				"fs cat /m/d":                      freshet.ExitConflict,
				"fs mkdir /m/d":                    freshet.ExitConflict,
				"fs mkdir /m/d/f":                  freshet.ExitConflict,
				"fs mkdir /m/d/f/g":                freshet.ExitConflict,
				"fs cp file:" + file + " /m/d/f/g": freshet.ExitConflict,
				"mount add /none " + p.missing:     -1, // the options are not given: any refusal will do
			} {
				ran := w.A.CLI(t, strings.Fields(args)...)
				if ran.Code != code && code > 0 || ran.Code == 0 {
					t.Errorf("%s: exit code %d, want %d: %s", args, ran.Code, code, ran.Err)
				}
				if said := twice(ran.Err); said != "" {
					t.Errorf("%s says %q twice: %s", args, said, ran.Err)
				}
			}
		})
	}
}

// twice returns what a message says in two ways, or twice in one, or the words with
// which a storage was asked for what the user names by a path.
func twice(message string) string {
	seen := map[string]bool{}
	for i, part := range strings.Split(strings.TrimSpace(message), ": ") {
		if i > 1 && strings.HasPrefix(part, "stat ") {
			return part
		}
		for _, same := range [][2]string{
			{"no such file or directory", "does not exist"},
			{"no such object", "does not exist"},
			{"no such blob", "does not exist"},
			{"directory not empty", "the directory is not empty"},
			{"file exists", "exists"},
		} {
			if strings.Contains(part, same[0]) {
				part = same[1]
			}
		}
		if seen[part] {
			return part
		}
		seen[part] = true
	}
	return ""
}
