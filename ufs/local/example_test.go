package local_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/local"
)

// Example mounts a directory, writes a file, and reads it as the version that the
// write made, before and after another program changes it.
func Example() {
	if err := run(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// read "first"
	// read again: open orders.csv: the storage holds another version
	// list: orders.csv (6 bytes)
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "freshet-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // an example
	mounts := ufs.NewMounts(ufs.Openers{local.Opener{}}, ufs.Environment{}, ufs.MountsOptions{})
	defer func() { err = errors.Join(err, mounts.Close()) }()
	if err := mounts.Put(freshet.Mount{ID: 1, Generation: 1, Path: "/", URI: "file://" + dir}); err != nil {
		return err
	}
	fs, release, err := mounts.Get(1)
	if err != nil {
		return err
	}
	defer release()
	if err := ufs.Probe(ctx, fs); err != nil {
		return err
	}

	w, err := fs.Create(ctx, "orders.csv", ufs.CreateOptions{Size: -1})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, "first"); err != nil {
		return errors.Join(err, w.Abort(ctx))
	}
	written, err := w.Commit(ctx)
	if err != nil {
		return errors.Join(err, w.Abort(ctx))
	}

	data, err := readVersion(ctx, fs, written)
	fmt.Printf("read %q\n", data)
	if err != nil {
		return err
	}
	if err := os.WriteFile(dir+"/orders.csv", []byte("second"), 0o600); err != nil {
		return err
	}
	if _, err := readVersion(ctx, fs, written); errors.Is(err, freshet.KindStale) {
		fmt.Println("read again:", err)
	}
	for st, err := range fs.List(ctx, "", ufs.ListOptions{}) {
		if err != nil {
			return err
		}
		fmt.Printf("list: %s (%d bytes)\n", st.Key, st.Length)
	}
	return nil
}

func readVersion(ctx context.Context, fs ufs.FS, of ufs.Status) (data []byte, err error) {
	r, _, err := fs.Open(ctx, of.Key, ufs.OpenOptions{Want: of.Fingerprint, Length: -1})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}
