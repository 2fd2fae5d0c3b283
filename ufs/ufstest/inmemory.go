package ufstest

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
)

// InMemory returns the harness of a storage in memory, below what wrap puts
// around it; nil puts nothing.
func InMemory(mode mem.Mode, wrap func(t *testing.T, fs ufs.FS) ufs.FS) Harness {
	const root = "root/of/mount"
	if wrap == nil {
		wrap = func(_ *testing.T, fs ufs.FS) ufs.FS { return fs }
	}
	var mu sync.Mutex
	stores := map[ufs.FS]*mem.Store{}
	storeOf := func(fs ufs.FS) *mem.Store {
		mu.Lock()
		defer mu.Unlock()
		return stores[fs]
	}
	wrong := func(r fault.Rule) func(*testing.T) ufs.FS {
		return func(t *testing.T) ufs.FS {
			f := fault.New(mem.New(mem.Options{Mode: mode}).FS(root))
			f.Add(r)
			return wrap(t, f)
		}
	}
	return Harness{
		Quiet: true, Many: 10_000,
		New: func(t *testing.T) ufs.FS {
			s := mem.New(mem.Options{Mode: mode})
			fs := wrap(t, s.FS(root))
			mu.Lock()
			defer mu.Unlock()
			stores[fs] = s
			return fs
		},
		Again:     func(t *testing.T, fs ufs.FS) ufs.FS { return wrap(t, storeOf(fs).FS(root)) },
		Outside:   func(_ *testing.T, fs ufs.FS) Outside { return outsideOf(storeOf(fs), root+"/") },
		Denied:    wrong(fault.Rule{Err: freshet.KindPermission}),
		Down:      wrong(fault.Rule{Err: freshet.KindUnavailable}),
		Throttled: wrong(fault.Rule{Err: freshet.KindExhausted}),
		Stalled:   wrong(fault.Rule{Gate: make(chan struct{})}),
	}
}

func outsideOf(s *mem.Store, root string) Outside {
	was := func(there bool) error {
		if !there {
			return errors.New("no such key")
		}
		return nil
	}
	return Outside{
		Put:     func(key string, data []byte) error { s.Put(root+key, data); return nil },
		Rewrite: func(key string, data []byte) error { return was(s.Rewrite(root+key, data)) },
		Remove:  func(key string) error { return was(s.Remove(root + key)) },
		Leftovers: func() ([]string, error) {
			if n := s.Uploads(); n > 0 {
				return []string{fmt.Sprintf("%d uploads", n)}, nil
			}
			return nil, nil
		},
	}
}
