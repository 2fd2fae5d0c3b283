package tier

import (
	"os"

	"github.com/freshet-io/freshet"
)

// Loan is a block that another process reads by a descriptor of its file. The block
// is not evicted before Close, and if it is removed all the same its space stays
// taken until then: what others have open never takes space that is not counted.
type Loan struct {
	reader *Reader
	file   *os.File
	layout freshet.BlockLayout
}

// Lend opens a block for another process. The errors are those of Open, and
// KindExhausted: others have half of the tier open, or too many blocks in memory;
// KindUnsupported: this kind of block can't be lent on this system.
func (r *Reader) Lend() (*Loan, error) {
	if err := r.tier.countLoan(r.entry); err != nil {
		return nil, err
	}
	l := &Loan{reader: r}
	if err := l.open(); err != nil {
		r.tier.endLoan(r.entry)
		return nil, err
	}
	return l, nil
}

func (l *Loan) open() (err error) {
	r := l.reader
	var sealed bool
	if l.file, l.layout.Offset, sealed, err = r.handle.lend(); err != nil {
		return err
	}
	l.layout.Length, l.layout.ChunkSize, l.layout.Sums, l.layout.Sealed = r.Length(), ChunkSize, r.check.table, sealed
	if sealed {
		// Bytes in memory are verified once for all who borrow them: what is on a disk
		// may be long in coming, and is left to them.
		if err := r.Verify(0, r.Length()); err != nil {
			l.Sent()
			return err
		}
	} else {
		st := r.check.stamp
		l.layout.Stamp = freshet.FileStamp{Inode: st.inode, Size: st.size, ModTime: st.mtime, ChangeTime: st.ctime}
	}
	l.layout.Verified = make([]uint64, len(r.check.verified))
	for i := range l.layout.Verified {
		l.layout.Verified[i] = r.check.verified[i].Load()
	}
	return nil
}

// Lend opens the file that the block is being written to for another process, for
// reading only, and returns where in it the block begins. Its length must have been
// known to Create. Who reads by it is told by others which bytes are there.
// KindExhausted: too many blocks in memory are lent; KindUnsupported: this kind of
// block can't be lent on this system.
func (w *Writer) Lend() (f *os.File, offset int64, err error) {
	if w.length < 0 {
		return nil, 0, freshet.Errorf(freshet.KindUnsupported, "lend block", "", "a block of unknown length can't be lent while it is written")
	}
	return w.draft.lend(w.length)
}

// File returns the descriptor to pass on, open for reading only and nobody else's.
func (l *Loan) File() *os.File { return l.file }

// Layout says where in the file the bytes are.
func (l *Loan) Layout() freshet.BlockLayout { return l.layout }

// Block returns the name of the block.
func (l *Loan) Block() freshet.BlockID { return l.reader.ID() }

// Held reports whether the tier still has the block.
func (l *Loan) Held() bool {
	held, _ := l.reader.Held()
	return held
}

// Sent closes the file: whoever borrows it has a copy, or never will.
func (l *Loan) Sent() {
	if l.file != nil {
		_ = l.file.Close() //nolint:errcheck // only lent
		l.file = nil
	}
}

// Close ends the loan: the borrower has closed its copy of the file.
func (l *Loan) Close() {
	l.Sent()
	l.reader.tier.endLoan(l.reader.entry)
	_ = l.reader.Close() //nolint:errcheck // the file may be closed already
}

// Lent returns the bytes of blocks that other processes have open.
func (t *Tier) Lent() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lent
}

// countLoan counts one more borrower of the block. Blocks that are lent are not
// evicted, so half of the tier is left for others.
func (t *Tier) countLoan(e *entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.loans == 0 {
		if t.lent+e.size > t.capacity/2 {
			return freshet.Errorf(freshet.KindExhausted, "lend block", "", "%d of the tier's %d bytes are lent already", t.lent, t.capacity)
		}
		t.lent += e.size
	}
	e.loans++
	return nil
}

func (t *Tier) endLoan(e *entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e.loans--; e.loans == 0 {
		t.lent -= e.size
	}
}
