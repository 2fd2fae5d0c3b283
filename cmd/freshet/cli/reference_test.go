package cli_test

import (
	"bytes"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/cli"
	"github.com/freshet-io/freshet/cmd/freshet/demo"
	"github.com/freshet-io/freshet/cmd/freshet/server"
)

// help returns what `freshet ARGS --help` prints.
func help(t *testing.T, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	streams := cli.Streams{In: strings.NewReader(""), Out: &out, Err: &out}
	code := cli.Run(t.Context(), append(args, "--help"), streams, func(s cli.Streams) []*cobra.Command {
		return append(server.Commands(server.Options{Out: s.Out, Err: s.Err}), demo.Command(demo.Options{Out: s.Out, Err: s.Err}))
	})
	if code != freshet.ExitOK {
		t.Fatalf("help of %q: exit code %d: %s", args, code, out.String())
	}
	return out.String()
}

// section returns the lines of the help below a title.
func section(text, title string) []string {
	_, after, ok := strings.Cut(text, "\n"+title+":\n")
	if !ok {
		return nil
	}
	body, _, _ := strings.Cut(after, "\n\n")
	return strings.Split(strings.TrimRight(body, "\n"), "\n")
}

// TestReferenceHasEveryCommandAndFlag fails when a command, or a flag of one, is
// not in docs/reference.md.
func TestReferenceHasEveryCommandAndFlag(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]string{} // by the words of the command
	for _, part := range strings.Split(string(b), "\n#### `freshet ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		body, _, _ = strings.Cut(body, "\n## ")
		words := regexp.MustCompile(`^[a-z]+( [a-z][a-z-]*)*`).FindString(heading)
		sections[words] = heading + body
	}
	seen := 0
	var walk func(path []string)
	walk = func(path []string) {
		text := help(t, path...)
		if below := section(text, "Available Commands"); below != nil && strings.Join(path, " ") != "completion" {
			for _, line := range below {
				if name := strings.Fields(line)[0]; name != "help" {
					walk(append(slices.Clip(path), name))
				}
			}
			return
		}
		seen++
		name := strings.Join(path, " ")
		entry, ok := sections[name]
		if !ok {
			t.Errorf("docs/reference.md has no entry for `freshet %s`", name)
		}
		for _, line := range section(text, "Flags") {
			flag := regexp.MustCompile(`--[a-z-]+`).FindString(line)
			if ok && flag != "--help" && !strings.Contains(entry, flag+" ") && !strings.Contains(entry, flag+"`") {
				t.Errorf("docs/reference.md does not have %s of `freshet %s`", flag, name)
			}
		}
	}
	walk(nil)
	if seen < 40 {
		t.Errorf("only %d commands were found: this test no longer reads the help", seen)
	}
}

// TestAlluxioPageNamesWhatIsThere fails when docs/alluxio.md names a command of freshet
// that does not exist, or a flag that this command does not have.
func TestAlluxioPageNamesWhatIsThere(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../../docs/alluxio.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("`freshet ([^`|]+)[^`]*`").FindAllSubmatch(b, -1)
	if len(commands) < 70 {
		t.Errorf("only %d commands were found: this test no longer reads the page", len(commands))
	}
	flags := regexp.MustCompile(`(?:^| )(-[A-Za-z]|--[a-z-]+)\b`)
	seen := map[string]bool{}
	for _, m := range commands {
		line := strings.TrimSpace(string(m[1]))
		if seen[line] {
			continue
		}
		seen[line] = true
		var path []string
		text := help(t)
		for word := range strings.FieldsSeq(line) {
			if !slices.ContainsFunc(section(text, "Available Commands"), func(l string) bool { return strings.Fields(l)[0] == word }) {
				break
			}
			path = append(path, word)
			text = help(t, path...)
		}
		usage := section(text, "Usage")
		if len(path) == 0 || len(usage) == 0 || usage[0] == "  freshet "+strings.Join(path, " ")+" [flags]" && section(text, "Available Commands") != nil {
			t.Errorf("docs/alluxio.md: there is no command `freshet %s`", line)
			continue
		}
		has := strings.Join(append(section(text, "Flags"), section(text, "Global Flags")...), "\n") + "\n"
		for _, f := range flags.FindAllStringSubmatch(line, -1) {
			if !regexp.MustCompile(`(?m)(^| )` + f[1] + `[ ,]`).MatchString(has) {
				t.Errorf("docs/alluxio.md: `freshet %s`: there is no flag %s", line, f[1])
			}
		}
	}
}

// TestReferenceHasEveryMetric fails when a metric of the code is not in the table of
// docs/reference.md, or the other way round. Of a name that the code puts together,
// such as "freshet_raft_" and more, it sees the beginning.
func TestReferenceHasEveryMetric(t *testing.T) {
	t.Parallel()
	root := os.DirFS("../../..")
	inCode := map[string]bool{}
	literal := regexp.MustCompile(`"(freshet_[a-z_]+)"`)
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "test" || path == "tools" || path == "bin" || strings.HasPrefix(path, ".") && path != "."):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := fs.ReadFile(root, path)
		for _, m := range literal.FindAllSubmatch(b, -1) {
			inCode[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(inCode, "freshet_op") // of a blob's metadata
	b, err := fs.ReadFile(root, "docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	inTable := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(freshet_[a-z_]+)`").FindAllSubmatch(b, -1) {
		name := string(m[1])
		inTable[name] = true
		for at := range inCode {
			if strings.HasSuffix(at, "_") && strings.HasPrefix(name, at) {
				inTable[at], inCode[name] = true, true
				break
			}
		}
		if !inCode[name] {
			t.Errorf("docs/reference.md has a metric %s, the code has not", m[1])
		}
	}
	for name := range inCode {
		if !inTable[name] {
			t.Errorf("docs/reference.md does not have the metric %s", name)
		}
	}
	if len(inCode) < 50 {
		t.Errorf("only %d metrics were found: this test no longer reads the code", len(inCode))
	}
}
