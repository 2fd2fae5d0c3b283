package namespace_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/kv"
	"github.com/freshet-io/freshet/coordinator/kv/pebblekv"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

var update = flag.Bool("update", false, "write what the scripts print into testdata")

// TestScripts runs the scripts of testdata: lines that begin with "> " are
// commands, what follows is what they print.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		for name, store := range scriptStores(t) {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) { runScript(t, file, store) })
		}
	}
}

// scriptStores are what a script runs on: what it prints must not depend on it.
func scriptStores(t *testing.T) map[string]kv.Store {
	t.Helper()
	disk, err := pebblekv.Open("db", pebblekv.Options{FS: vfs.NewMem(), CacheBytes: 1 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	return map[string]kv.Store{"memory": newMemory(), "pebble": disk}
}

func runScript(t *testing.T, file string, store kv.Store) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &script{cluster: &cluster{t: t, s: open(t, store)}, store: store, log: &peerLog{who: peer}, start: map[string]uint64{}}
	s.found()
	var out strings.Builder
	for line := range strings.Lines(string(raw)) {
		switch {
		case strings.HasPrefix(line, "> "):
			out.WriteString(line)
			out.WriteString(s.run(strings.Fields(line[2:])))
		case strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "":
			out.WriteString(line)
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got := out.String(); got != string(raw) {
		t.Fatalf("the script prints\n%s\nwant\n%s", got, raw)
	}
}

type script struct {
	*cluster
	store kv.Store
	log   *peerLog
	start map[string]uint64
}

func (s *script) run(w []string) string {
	p := func(i int) freshet.Path { return freshet.Path(w[i]) }
	switch w[0] {
	case "mount": // PATH KEY [ro]
		m := mountOf(p(1), w[2])
		m.ReadOnly = len(w) > 3
		return s.say(namespace.Command{AddMount: &namespace.AddMount{Mount: m}})
	case "unmount":
		return s.say(namespace.Command{RemoveMount: &namespace.RemoveMount{Path: p(1), Force: len(w) > 2}})
	case "policy":
		i, err := freshet.ParseInterval(w[2])
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		return s.say(namespace.Command{SetPolicy: &namespace.Policy{Path: p(1), Interval: i, Origin: "operator"}})
	case "nopolicy":
		return s.say(namespace.Command{RemovePolicy: &namespace.RemovePolicy{Path: p(1)}})
	case "set": // PATH PROPERTY VALUE
		return s.say(namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: p(1), Set: []namespace.PolicySetting{setting(freshet.Property(w[2]), w[3])}}})
	case "unset": // PATH PROPERTY
		return s.say(namespace.Command{ChangePolicy: &namespace.ChangePolicy{Path: p(1), Unset: []freshet.Property{freshet.Property(w[2])}}})
	case "version": // NUMBER
		v, err := strconv.Atoi(w[1])
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		return s.say(namespace.Command{SetVersion: &namespace.SetVersion{Version: v}})
	case "begin": // OP KIND PATH [PATH2]
		kinds := map[string]namespace.OpKind{"write": namespace.OpWrite, "mkdir": namespace.OpMkdir, "remove": namespace.OpRemove, "rename": namespace.OpRename, "setattr": namespace.OpSetAttr}
		b := &namespace.Begin{Op: s.op(w[1]), Kind: kinds[w[2]], Path: p(3), At: epochTime}
		if len(w) > 4 {
			b.Path2 = p(4)
		}
		return s.say(namespace.Command{Begin: b})
	case "complete": // OP ENTRY [uncertain]
		return s.say(namespace.Command{Complete: &namespace.Complete{Op: s.op(w[1]), Entry: entryOf(w[2]), Uncertain: len(w) > 3, At: epochTime}})
	case "abort":
		return s.say(namespace.Command{Abort: &namespace.Abort{Op: s.op(w[1]), Definite: true}})
	case "resolve": // OP ENTRY [ours] [ended] [moved] [copied] [late [START]]
		said := func(flag string) bool { return slices.Contains(w[3:], flag) }
		r := &namespace.Resolve{Op: s.op(w[1]), Known: true, Observed: entryOf(w[2]), At: epochTime}
		r.Ours, r.Ended, r.Moved, r.Late = said("ours"), said("ended"), said("moved"), said("late")
		r.Copied = said("copied")
		if r.Late {
			r.Start = s.s.Applied()
			if last := w[len(w)-1]; s.start[last] != 0 {
				r.Start = s.start[last]
			}
		}
		return s.say(namespace.Command{Resolve: r})
	case "endquarantine":
		return s.say(namespace.Command{EndQuarantine: &namespace.EndQuarantine{Op: s.op(w[1]), At: epochTime}})
	case "start": // NAME: remember the index at which a load begins
		s.start[w[1]] = s.s.Applied()
		return ""
	case "load": // PATH ENTRY [START]
		m, _ := s.s.MountAt(p(1))
		return s.say(namespace.Command{LoadEntry: &namespace.LoadEntry{Mount: m.ID, Generation: m.Generation, Path: p(1), Start: s.from(w, 3), Entry: entryOf(w[2])}})
	case "list": // PATH START ENTRY...
		m, _ := s.s.MountAt(p(1))
		c := &namespace.LoadListing{Mount: m.ID, Generation: m.Generation, Dir: p(1), Start: s.from(w, 2), ListStart: s.from(w, 2), Complete: true}
		for _, e := range w[3:] {
			if name, gone := strings.CutPrefix(e, "-"); gone {
				c.Removes = append(c.Removes, name)
				continue
			}
			name, what, _ := strings.Cut(e, "=")
			entry := entryOf(what)
			entry.Name = name
			c.Upserts = append(c.Upserts, *entry)
		}
		return s.say(namespace.Command{LoadListing: c})
	case "mark":
		return s.say(namespace.Command{Mark: &namespace.Mark{Path: p(1), Recursive: len(w) > 2}})
	case "purge":
		return s.say(namespace.Command{Purge: &namespace.Purge{}})
	case "show":
		return s.show(p(1))
	case "ls":
		return s.ls(p(1))
	case "records":
		return s.records()
	}
	if out, ok := s.runKept(w); ok {
		return out
	}
	s.t.Fatalf("unknown command %q", w)
	return ""
}

func (s *script) op(n string) freshet.OpID {
	i, err := strconv.Atoi(n)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return opID(i)
}

func (s *script) from(w []string, i int) uint64 {
	if i < len(w) && w[i] != "now" {
		return s.start[w[i]]
	}
	return s.s.Applied()
}

// entryOf reads "none", "dir" or the number that names a file's content.
func entryOf(s string) *namespace.Entry {
	switch s {
	case "none":
		return nil
	case "dir":
		return dirEntry("")
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return fileEntry("", n)
}

func (s *script) say(c namespace.Command) string { return s.said(s.do(c)) }

// said tells the result of the last command.
func (s *script) said(r namespace.Result) string {
	if r.Err != nil {
		return fmt.Sprintf("%s: %v\n", freshet.KindOf(r.Err), r.Err)
	}
	var words []string
	if r.Installed {
		words = append(words, "installed")
	}
	if len(r.Rejected) > 0 {
		words = append(words, "rejected "+strings.Join(r.Rejected, ","))
	}
	if r.Done {
		words = append(words, "done before")
	}
	if !r.Completed.Token.IsZero() {
		words = append(words, fmt.Sprintf("record %d", r.Completed.Token.Seq))
	}
	if r.Intent.Started != 0 {
		words = append(words, r.Intent.State.String())
	}
	if n := r.Intent.BlockSize; n != 0 && n != freshet.DefaultBlockSize {
		words = append(words, "blocks of "+freshet.FormatSize(n))
	}
	if n := len(s.last.Freed); n > 0 {
		words = append(words, fmt.Sprintf("freed %d", n))
	}
	if len(words) == 0 {
		return "ok\n"
	}
	return strings.Join(words, ", ") + "\n"
}

func (s *script) show(p freshet.Path) string {
	l := s.look(p)
	var words []string
	add := func(on bool, format string, args ...any) {
		if on {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(!l.Found, "not held")
	add(l.Found, "%s", l.Info.Type)
	add(l.Found && l.Info.Type == freshet.TypeFile, "content %d, version %d", l.Info.Length, l.Info.FileID&0xFFFFFF)
	add(l.Found && l.Info.BlockSize != 0 && l.Info.BlockSize != freshet.DefaultBlockSize, "blocks of %s", freshet.FormatSize(l.Info.BlockSize))
	add(l.Placeholder, "placeholder")
	add(l.MountPoint, "mount point")
	add(l.Virtual, "virtual")
	add(l.Found && l.HasMount && !l.Virtual, "%s", fresh(l.Freshness))
	add(l.KnownAbsent, "absent by %s %s", l.AbsentAt, fresh(l.Absent))
	add(l.Listing.Complete, "listing %s", fresh(l.Listing.Freshness))
	add(l.Unpersisted, "unpersisted")
	add(l.Uncachable, "uncachable")
	add(l.Listing.Uncachable && l.Found, "listing uncachable")
	add(l.PendingWriters > 0, "%d writers", l.PendingWriters)
	if l.Rule.Path != "" {
		add(true, "%s by %s of %s", l.Interval, map[bool]string{true: "mount", false: "policy"}[l.Rule.Mount], l.Rule.Path)
	}
	return strings.Join(words, "; ") + "\n"
}

func fresh(f namespace.Freshness) string {
	if f.Servable(0) {
		return "servable"
	}
	return "needs sync"
}

func (s *script) ls(p freshet.Path) string {
	children, err := s.s.List(p, "", 0)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	var out strings.Builder
	for _, c := range children {
		fmt.Fprintf(&out, "%s %s", c.Name, c.Info.Type)
		if c.Info.MountPoint {
			out.WriteString(" mount")
		}
		if c.Virtual {
			out.WriteString(" virtual")
		} else {
			out.WriteString(" " + fresh(c.Freshness))
		}
		out.WriteByte('\n')
	}
	return out.String()
}

func (s *script) records() string {
	b, err := s.s.Records(domain, 0, 0)
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	for _, r := range b.Records {
		fmt.Fprintf(&out, "%d %s %s", r.Seq, r.Kind, r.Key)
		if r.Key2 != "" {
			out.WriteString(" " + r.Key2)
		}
		if r.Recursive {
			out.WriteString(" recursive")
		}
		if r.Fingerprint.Known() {
			out.WriteString(" " + r.Fingerprint.Content[:5])
		}
		out.WriteByte('\n')
	}
	return out.String()
}
