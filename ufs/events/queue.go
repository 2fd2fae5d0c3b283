package events

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"github.com/freshet-io/freshet/internal/clock"
	"github.com/freshet-io/freshet/ufs"
)

// Letter is a message of a Queue that was received and not yet deleted.
type Letter struct {
	// Receipt is what the queue wants to see for the letter to be deleted.
	Receipt string
	Body    []byte
}

// Queue keeps messages until they are deleted and delivers each at least once,
// in any order. Who received a letter has it for a while; a letter that was not
// deleted by then is delivered again.
type Queue interface {
	// Receive returns what is there, after waiting for at most wait. Nothing is
	// no error.
	Receive(ctx context.Context, wait time.Duration) ([]Letter, error)
	// Delete deletes letters for good.
	Delete(ctx context.Context, letters []Letter) error
	// Release lets letters be delivered again at once. It does what it can.
	Release(ctx context.Context, letters []Letter)
}

// Counts of letters by what they were, for Options.Count.
const (
	LetterNews     = "news"
	LetterNothing  = "nothing" // test events and the like
	LetterUnread   = "unread"
	LetterReleased = "released" // received, but not applied
)

const (
	pollWait      = 5 * time.Second // of a receive: an empty notice at least that often
	checkInterval = time.Minute
	checkTimeout  = 5 * time.Second
	releaseWait   = 2 * time.Second
	// cursorStep is how exactly the cursor tells when the queue was last read.
	cursorStep = 10 * time.Minute
	maxForeign = 64 // storages of which the log says that the queue tells of them too
)

// ReceiverOptions are the options of a Receiver; the zero value works.
type ReceiverOptions struct {
	// Own is the Authority of the mount that is watched through.
	Own string
	// Retention is how long the queue keeps messages; 0 is 4 days.
	Retention time.Duration
	// Check, if set, is asked at the start and every minute whether the storage
	// feeds the queue; its error ends the watch.
	Check func(context.Context) error
	// Count, if set, counts letters by what they were.
	Count func(what string)
	Log   *slog.Logger // nil drops
	Clock clock.Clock  // nil is the machine's
}

// Receiver makes notices of the letters of a Queue. A letter is deleted when what
// it tells was applied for good: when the consumer asks for more. A letter that
// can't be read becomes a Gap before it is deleted.
type Receiver struct {
	queue   Queue
	opts    ReceiverOptions
	foreign map[string]bool
}

// NewReceiver returns a Receiver; it does nothing yet.
func NewReceiver(q Queue, opts ReceiverOptions) *Receiver {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Clock == nil {
		opts.Clock = clock.Real{}
	}
	if opts.Retention <= 0 {
		opts.Retention = 4 * 24 * time.Hour
	}
	if opts.Count == nil {
		opts.Count = func(string) {}
	}
	return &Receiver{queue: q, opts: opts, foreign: map[string]bool{}}
}

// Watch implements Watch of ufs.Watcher. The queue keeps the position; the cursor
// only tells whether nobody read it for so long that it forgot messages. One at a
// time.
func (r *Receiver) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		stopped, err := r.run(ctx, since, yield)
		if err != nil && !stopped {
			yield(ufs.Notice{}, err)
		}
	}
}

type yieldFunc = func(ufs.Notice, error) bool

func (r *Receiver) run(ctx context.Context, since []byte, yield yieldFunc) (stopped bool, err error) {
	if err := r.check(ctx); err != nil {
		return false, err
	}
	checked := r.opts.Clock.Elapsed()
	forgotten := r.forgotten(since)
	for wait := time.Duration(0); ; wait = pollWait { // the first shows at once that the queue can be read
		letters, err := r.queue.Receive(ctx, wait)
		if err != nil {
			return false, err
		}
		notices := r.read(letters)
		if forgotten != "" {
			notices = append([]ufs.Notice{{Gap: forgotten}}, notices...)
			forgotten = ""
		}
		if len(notices) == 0 {
			notices = []ufs.Notice{{}}
		}
		cursor := r.cursor()
		for _, n := range notices {
			if n.Cursor = cursor; !yield(n, nil) {
				r.release(ctx, letters)
				return true, nil
			}
		}
		if len(letters) > 0 {
			if err := r.queue.Delete(ctx, letters); err != nil {
				return false, err
			}
		}
		if now := r.opts.Clock.Elapsed(); now-checked >= checkInterval {
			if err := r.check(ctx); err != nil {
				return false, err
			}
			checked = now
		}
	}
}

// check asks whether the storage feeds the queue. No answer in time is none.
func (r *Receiver) check(ctx context.Context) error {
	if r.opts.Check == nil {
		return nil
	}
	sub, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := r.opts.Check(sub)
	if err != nil && sub.Err() != nil && ctx.Err() == nil {
		r.opts.Log.Warn("can't look whether the bucket feeds the queue", "storage", r.opts.Own, "err", err)
		return nil
	}
	return err
}

// release gives back letters that were not applied, so that the next receiver
// need not wait until the queue does.
func (r *Receiver) release(ctx context.Context, letters []Letter) {
	if len(letters) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseWait)
	defer cancel()
	r.queue.Release(ctx, letters)
	for range letters {
		r.opts.Count(LetterReleased)
	}
}

// read makes notices of letters: a Gap if one can't be read, and one for each
// storage that they tell of.
func (r *Receiver) read(letters []Letter) []ufs.Notice {
	var notices []ufs.Notice
	at := map[string]int{}
	seen := map[Event]bool{}
	gap := ""
	for _, l := range letters {
		m, err := Parse(l.Body)
		switch {
		case err != nil:
			gap = fmt.Sprintf("a message of the queue can't be read: %v", err)
		case m.Unread > 0:
			gap = "a message of the queue can't be read: " + m.Why
		}
		r.count(m, err)
		for _, e := range m.Events {
			r.meet(e.Authority)
			known := e
			known.Record.PublishedAt = time.Time{}
			if seen[known] {
				continue
			}
			seen[known] = true
			i, ok := at[e.Authority]
			if !ok {
				i = len(notices)
				at[e.Authority] = i
				notices = append(notices, ufs.Notice{Of: e.Authority})
			}
			notices[i].Changes = append(notices[i].Changes, e.Record)
		}
	}
	if gap != "" {
		notices = append([]ufs.Notice{{Gap: gap}}, notices...)
	}
	return notices
}

func (r *Receiver) count(m Message, err error) {
	switch {
	case err != nil:
		r.opts.Log.Warn("a message of the queue can't be read: everything is looked at again", "storage", r.opts.Own, "err", err)
		r.opts.Count(LetterUnread)
	case m.Unread > 0:
		r.opts.Log.Warn("a message of the queue can't be read: everything is looked at again", "storage", r.opts.Own, "err", m.Why)
		r.opts.Count(LetterUnread)
	case len(m.Events) > 0:
		r.opts.Count(LetterNews)
	default:
		r.opts.Count(LetterNothing)
	}
	if m.Confirm != "" {
		r.opts.Log.Warn("SNS asks to confirm a subscription: confirm it with the tools of AWS", "storage", r.opts.Own)
	}
}

// meet says once that the queue tells of another storage too: that is fine if it
// is mounted, and else a slip in the set-up.
func (r *Receiver) meet(authority string) {
	if authority == r.opts.Own || r.foreign[authority] || len(r.foreign) >= maxForeign {
		return
	}
	r.foreign[authority] = true
	r.opts.Log.Info("the queue also tells of another storage", "storage", r.opts.Own, "other", authority)
}

// cursor tells when the queue was last read.
func (r *Receiver) cursor() []byte {
	return binary.BigEndian.AppendUint64(nil, uint64(r.opts.Clock.Now().Truncate(cursorStep).Unix())) //nolint:gosec // after 1970
}

// forgotten says what is wrong if the queue was not read since the cursor for
// longer than it keeps messages.
func (r *Receiver) forgotten(since []byte) string {
	if len(since) == 0 {
		return ""
	}
	if len(since) != 8 {
		return "the cursor is not one of a queue"
	}
	last := time.Unix(int64(binary.BigEndian.Uint64(since)), 0) //nolint:gosec // written by cursor
	if away := r.opts.Clock.Now().Sub(last); away > r.opts.Retention || away < -cursorStep {
		return fmt.Sprintf("the queue was last read at %s and keeps messages for %s", last.UTC().Format(time.RFC3339), r.opts.Retention)
	}
	return ""
}
