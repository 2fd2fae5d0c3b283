package version

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	vcs := []debug.BuildSetting{
		{Key: "vcs.revision", Value: "0123456789abcdef"},
		{Key: "vcs.time", Value: "2026-01-02T03:04:05Z"},
		{Key: "vcs.modified", Value: "true"},
	}
	linked := Info{Version: "v1.2.3", Commit: "feedfacefeedface", Date: "2026-05-06T07:08:09Z"}
	tests := []struct {
		name  string
		info  Info
		build *debug.BuildInfo
		want  Info
	}{
		{"nothing known", Info{}, nil, Info{Version: "devel"}},
		{"go build in a checkout", Info{}, &debug.BuildInfo{Main: debug.Module{Version: "(devel)"}, Settings: vcs}, Info{
			Version: "devel", Commit: "0123456789abcdef", Date: "2026-01-02T03:04:05Z", Modified: true,
		}},
		{"go install of a release", Info{}, &debug.BuildInfo{Main: debug.Module{Version: "v1.4.0"}}, Info{Version: "v1.4.0"}},
		{"the linker wins", linked, &debug.BuildInfo{Main: debug.Module{Version: "v1.4.0"}, Settings: vcs}, linked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := merge(tt.info, tt.build)
			tt.want.Go, tt.want.Platform = runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH
			tt.want.Protocols = Protocols{Client: 1, Node: 1, Bus: 1, State: 1}
			if got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	tests := []struct{ info, want string }{
		{`{"version":"devel"}`, "freshet devel go1 os/arch"},
		{`{"version":"v1","commit":"0123456789abcdef"}`, "freshet v1 (commit 0123456789ab) go1 os/arch"},
		{`{"version":"v1","commit":"0123","modified":true,"date":"2026"}`, "freshet v1 (commit 0123, modified, 2026) go1 os/arch"},
	}
	for _, tt := range tests {
		info := Info{Go: "go1", Platform: "os/arch", Protocols: Protocols{1, 2, 3, 4}}
		if err := json.Unmarshal([]byte(tt.info), &info); err != nil {
			t.Fatal(err)
		}
		if want := tt.want + ", protocols client 1, node 2, bus 3, state 4"; info.String() != want {
			t.Errorf("got  %q\nwant %q", info, want)
		}
	}
}

// TestLinkerFlags builds a program with the flags of the Makefile and asks it,
// because the linker ignores the name of a variable that does not exist.
func TestLinkerFlags(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds a program")
	}
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	const pkg = "github.com/freshet-io/freshet/internal/version"
	var flags []string
	for name, value := range map[string]string{"version": "v9.8.7-dirty", "commit": "abcdef", "date": "2026-07-07T00:00:00Z"} {
		if !strings.Contains(string(makefile), "-X $(VERSION_PKG)."+name+"=") {
			t.Errorf("the Makefile does not set %s", name)
		}
		flags = append(flags, "-X "+pkg+"."+name+"="+value)
	}
	// The test binary of this very package is a program that can print Get.
	binary := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", binary, "-ldflags", strings.Join(flags, " "), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	probe := exec.CommandContext(t.Context(), binary, "-test.run", "^TestPrint$", "-test.v")
	probe.Env = append(os.Environ(), "FRESHET_VERSION_PROBE=1")
	out, err := probe.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "freshet v9.8.7 (commit abcdef, modified, 2026-07-07T00:00:00Z)"; !strings.Contains(string(out), want) {
		t.Errorf("the program does not say %q:\n%s", want, out)
	}
}

// TestPrint prints Get for TestLinkerFlags.
func TestPrint(t *testing.T) {
	t.Parallel()
	got := Get()
	if os.Getenv("FRESHET_VERSION_PROBE") != "" {
		t.Log(got.String())
	}
	if got.Version == "" || got.Go == "" || got.Platform == "" {
		t.Errorf("incomplete: %+v", got)
	}
}
