package namespace_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
)

// runKept runs a command about files that are not in the storage; false if it is
// another one.
func (s *script) runKept(w []string) (string, bool) {
	p := func(i int) freshet.Path { return freshet.Path(w[i]) }
	switch w[0] {
	case "keep": // OP WRITETYPE PATH [REPLICAS]
		write, err := freshet.ParseWriteType(w[2])
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		b := &namespace.Begin{Op: s.op(w[1]), Kind: namespace.OpWrite, Path: p(3), Node: "n1", Incarn: 1, Write: write, At: epochTime}
		if len(w) > 4 {
			b.Replicas = s.number(w[4])
		}
		return s.sayKept(namespace.Command{Begin: b}), true
	case "kept": // OP LENGTH NODES [memory]
		return s.sayKept(s.keptCommand(w)), true
	case "keeper": // VERSION NODE
		return s.sayKept(namespace.Command{AddKeeper: &namespace.AddKeeper{File: s.version(w[1]), Node: freshet.NodeID(w[2])}}), true
	case "queue": // VERSION [overwrite CONTENT]
		q := &namespace.QueuePersist{Files: []freshet.FileID{s.version(w[1])}, At: epochTime.Add(60e9)}
		if len(w) > 2 {
			q.Overwrite, q.Beneath = true, beneathOf(w[3])
		}
		return s.sayKept(namespace.Command{QueuePersist: q}), true
	case "persist": // OP PATH VERSION NODE
		return s.sayKept(namespace.Command{Begin: &namespace.Begin{
			Op: s.op(w[1]), Kind: namespace.OpWrite, Path: p(2), Node: freshet.NodeID(w[4]), Incarn: 1, Write: freshet.AsyncThrough, At: epochTime, Persist: s.version(w[3]),
		}}), true
	case "through": // OP PATH: a node begins to write through to the storage
		return s.sayKept(namespace.Command{Begin: &namespace.Begin{
			Op: s.op(w[1]), Kind: namespace.OpWrite, Path: p(2), Node: "n1", Incarn: 1, Write: freshet.Through, At: epochTime,
		}}), true
	case "permit": // OP NODE
		return s.sayKept(namespace.Command{Permit: &namespace.Permit{Op: s.op(w[1]), Node: freshet.NodeID(w[2]), Incarn: 1}}), true
	case "done": // OP ENTRY [uncertain]
		return s.sayKept(namespace.Command{Complete: &namespace.Complete{Op: s.op(w[1]), Entry: entryOf(w[2]), Uncertain: len(w) > 3, At: epochTime}}), true
	case "failed": // OP ERROR [conflict]
		return s.sayKept(namespace.Command{PersistFailed: &namespace.PersistFailed{
			Op: s.op(w[1]), Error: w[2], Conflict: len(w) > 3, Next: epochTime.Add(300e9),
		}}), true
	case "remove": // OP PATH: begins the removal of all that is there
		return s.sayKept(namespace.Command{Begin: &namespace.Begin{Op: s.op(w[1]), Kind: namespace.OpRemove, Path: p(2), Recursive: true, At: epochTime}}), true
	case "move": // OP PATH PATH2 BENEATH [START]
		return s.sayKept(namespace.Command{MoveUnpersisted: &namespace.MoveUnpersisted{Op: s.op(w[1]), Path: p(2), Path2: p(3), Beneath: beneathOf(w[4]), Start: s.from(w, 5)}}), true
	case "stop": // PATH...
		c := &namespace.StopPersist{}
		for _, q := range w[1:] {
			c.Paths = append(c.Paths, freshet.Path(q))
		}
		return s.sayKept(namespace.Command{StopPersist: c}), true
	case "unpersisted":
		return s.unpersisted(), true
	case "release": // VERSION...
		return s.released(w[1:]), true
	case "restart":
		s.s = open(s.t, s.store)
		return "", true
	case "hash":
		h, err := s.s.Hash()
		if err != nil {
			s.t.Fatalf("%v", err)
		}
		return fmt.Sprintf("%x\n", h), true
	}
	return "", false
}

func (s *script) keptCommand(w []string) namespace.Command {
	n := s.number(w[2])
	e := &namespace.Entry{Type: freshet.TypeFile, Length: int64(n), ModTime: epochTime, Owner: "ada", Group: "staff", Mode: 0o644}
	c := &namespace.Complete{Op: s.op(w[1]), Entry: e, At: epochTime, Memory: len(w) > 4}
	for node := range strings.SplitSeq(w[3], ",") {
		c.Nodes = append(c.Nodes, freshet.NodeID(node))
	}
	return namespace.Command{Complete: c}
}

func (s *script) number(w string) int {
	n, err := strconv.Atoi(w)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return n
}

// version returns the file ID of a version as show numbers them.
func (s *script) version(w string) freshet.FileID {
	return freshet.FileID(s.s.Identity().Epoch<<40 | uint64(s.number(w)))
}

func numberOf(id freshet.FileID) uint64 { return uint64(id) & 0xFFFFFF }

// beneathOf reads "none" or the number that names a content of the storage.
func beneathOf(w string) fingerprint.Fingerprint {
	if e := entryOf(w); e != nil {
		return e.Fingerprint
	}
	return fingerprint.Fingerprint{}
}

// sayKept says what say does, and what became of unpersisted files.
func (s *script) sayKept(c namespace.Command) string {
	r := s.do(c)
	out := strings.TrimSuffix(s.said(r), "\n")
	if f := r.Intent.File; f != 0 {
		out += fmt.Sprintf(", version %d", numberOf(f))
	}
	if r.Dropped > 0 {
		out += fmt.Sprintf(", %d files", r.Dropped)
	}
	if r.More {
		out += ", more"
	}
	for _, id := range s.last.Persisted {
		out += fmt.Sprintf(", persisted %d", numberOf(id))
	}
	for i := range s.last.Withdrawn {
		out += fmt.Sprintf(", withdrawn %s by %s", s.last.Withdrawn[i].Path, s.last.Withdrawn[i].Node)
	}
	return out + "\n"
}

// unpersisted prints all that is known of each unpersisted file.
func (s *script) unpersisted() string {
	all, err := s.s.Unpersisted(0, nil)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	var out strings.Builder
	t := s.s.UnpersistedTotals()
	fmt.Fprintf(&out, "%d files, %d bytes\n", t.Files, t.Bytes)
	for i := range all {
		f := &all[i]
		fmt.Fprintf(&out, "%s version %d of %d bytes on %s promised %d key %q of %s:%s mode %o", f.Path, numberOf(f.File), f.Length, f.Nodes, f.Promised(), f.Key, f.Owner, f.Group, f.Mode)
		add := func(on bool, format string, args ...any) {
			if on {
				fmt.Fprintf(&out, "; "+format, args...)
			}
		}
		add(f.Memory, "in memory alone")
		add(f.Beneath.Known(), "over %.5s", f.Beneath.Content)
		add(f.Queued, "queued, waits %s", f.Waits().Sub(epochTime))
		add(!f.Next.IsZero(), "not before %s", f.Next.Sub(epochTime))
		add(f.Attempts > 0, "%d failed: %s", f.Attempts, f.Error)
		add(f.Conflict, "conflict")
		add(!f.Persisting.IsZero(), "persisted by operation %d", int(f.Persisting[14])<<8|int(f.Persisting[15]))
		out.WriteByte('\n')
	}
	return out.String()
}

// released says which of the versions no node needs to keep any more.
func (s *script) released(versions []string) string {
	var ask []freshet.FileID
	for _, v := range versions {
		ask = append(ask, s.version(v))
	}
	over := s.s.Release(s.s.Identity().Cluster, ask)
	live := s.s.FileLive(ask)
	var out strings.Builder
	for i, id := range ask {
		fmt.Fprintf(&out, "%d released %t live %t\n", numberOf(id), slices.Contains(over, id), live[i])
	}
	return out.String()
}
