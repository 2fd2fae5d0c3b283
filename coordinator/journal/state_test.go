package journal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/journal"
	"github.com/freshet-io/freshet/coordinator/namespace"
)

var _ journal.State = (*namespace.State)(nil)

// register is a state machine that keeps the numbers it was given, in order. It is
// durable as far as Flush made it: crash returns what a restart would find.
type register struct {
	mu      sync.Mutex
	applied uint64
	values  []uint64
	flushed []byte
	file    string // where Flush writes, "" for memory alone
	failed  error
	dumps   int
	killed  bool // a crash was simulated: nothing reaches the disk any more
}

// put is the command that adds v.
func put(v uint64) namespace.Command {
	return namespace.Command{ForgetOps: &namespace.ForgetOps{Index: v}}
}

// errRefused is the result of the command put(0).
var errRefused = freshet.Errorf(freshet.KindInvalid, "put", "", "zero is refused")

// poison makes the store of the state fail.
const poison = ^uint64(0)

func (r *register) Apply(index uint64, cmds []namespace.Command) ([]namespace.Result, namespace.Changes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index <= r.applied || r.failed != nil {
		return nil, namespace.Changes{}
	}
	results := make([]namespace.Result, len(cmds))
	for i, c := range cmds {
		results[i].Index = index
		switch {
		case c.LoadListing != nil:
			results[i].Epoch = uint64(len(c.LoadListing.Upserts))
		case c.ForgetOps.Index == 0:
			results[i].Err = errRefused
		case c.ForgetOps.Index == poison:
			r.failed = errors.New("the disk of the state is gone")
		default:
			r.values = append(r.values, c.ForgetOps.Index)
			results[i].Epoch = c.ForgetOps.Index
		}
	}
	r.applied = index
	return results, namespace.Changes{}
}

func (r *register) Applied() uint64 { r.mu.Lock(); defer r.mu.Unlock(); return r.applied }
func (r *register) Err() error      { r.mu.Lock(); defer r.mu.Unlock(); return r.failed }

func (r *register) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, r.applied)
	for _, v := range r.values {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

func (r *register) decode(b []byte) error {
	if len(b) < 8 || len(b)%8 != 0 {
		return fmt.Errorf("a state of %d bytes", len(b))
	}
	r.applied = binary.BigEndian.Uint64(b)
	r.values = nil
	for b = b[8:]; len(b) > 0; b = b[8:] {
		r.values = append(r.values, binary.BigEndian.Uint64(b))
	}
	return nil
}

func (r *register) Flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.killed {
		return errKilled
	}
	r.flushed = r.encode()
	if r.file == "" {
		return nil
	}
	if err := os.WriteFile(r.file+".new", r.flushed, 0o600); err != nil {
		return err
	}
	return os.Rename(r.file+".new", r.file)
}

func (r *register) Dump(w io.Writer) (uint64, error) {
	r.mu.Lock()
	r.dumps++
	applied, b := r.applied, r.encode()
	r.mu.Unlock()
	_, err := w.Write(b)
	return applied, err
}

func (r *register) Restore(from io.Reader) error {
	b, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.decode(b)
}

var errKilled = errors.New("the process was killed")

// crash returns the state as a process that starts after a crash finds it.
func (r *register) crash() *register {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.killed = true
	next := &register{flushed: r.flushed, file: r.file}
	if len(r.flushed) > 0 {
		if err := next.decode(r.flushed); err != nil {
			panic(err)
		}
	}
	return next
}

// openRegister reads the state that Flush wrote into a file.
func openRegister(file string) (*register, error) {
	r := &register{file: file}
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	r.flushed = b
	return r, r.decode(b)
}

func (r *register) list() []uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.values)
}

// hash is of the values alone: members may have applied different indexes that are
// not commands.
func (r *register) hash() [32]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return sha256.Sum256(r.encode()[8:])
}

func (r *register) dumped() int { r.mu.Lock(); defer r.mu.Unlock(); return r.dumps }

func dumpOf(r *register, cluster freshet.ClusterID) []byte {
	var b bytes.Buffer
	if _, err := journal.WriteDump(&b, cluster, r.Dump); err != nil {
		panic(err)
	}
	return b.Bytes()
}
