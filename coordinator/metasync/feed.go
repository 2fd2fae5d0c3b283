package metasync

import (
	"context"
	"iter"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// defaultBite is how many entries are taken from a listing that has no pages
// before they are handled.
const defaultBite = 1000

// feed takes the entries of a storage's listing a bite at a time: it holds a slot
// while it waits for the storage, and none while the entries are handled, which
// may wait for the log.
type feed struct {
	s     *Syncer
	mount freshet.MountID
	bite  int    // entries; 0 is defaultBite
	most  int    // after how many entries to stop, if not 0
	began func() // called when the first slot was given, before the storage is asked

	n    int    // entries that were handled
	last string // sort key of the last one
}

// run lists and handles until the listing, or most, ends, or something fails.
func (f *feed) run(ctx context.Context, dir freshet.Path, list func(context.Context) iter.Seq2[ufs.Status, error], each func(*ufs.Status) error) error {
	if f.bite == 0 {
		f.bite = defaultBite
	}
	slot, err := f.s.slots.Take(ctx, f.mount)
	if err != nil {
		return ended(ctx, dir)
	}
	holds := true
	defer func() {
		if holds {
			slot.Release()
		}
	}()
	var page []ufs.Status
	handle := func() error {
		slot.Release()
		holds = false
		for i := range page {
			if err := each(&page[i]); err != nil {
				return err
			}
		}
		clear(page)
		page = page[:0]
		return nil
	}
	f.began()
	for st, err := range list(ctx) {
		if err != nil {
			return err
		}
		f.n++
		f.last = st.SortKey()
		page = append(page, st)
		if f.n == f.most {
			break
		}
		if len(page) < f.bite {
			continue
		}
		if err := handle(); err != nil {
			return err
		}
		if slot, err = f.s.slots.Take(ctx, f.mount); err != nil {
			return ended(ctx, dir)
		}
		holds = true
	}
	return handle()
}
