package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// localRival is a directory through package os.
type localRival string

func (d localRival) at(key string) string { return filepath.Join(string(d), filepath.FromSlash(key)) }

func (d localRival) put(_ context.Context, key string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.at(key)), 0o755); err != nil {
		return err
	}
	return os.WriteFile(d.at(key), data, 0o600)
}

func (d localRival) list(_ context.Context, dir string) (int, error) {
	all, err := os.ReadDir(d.at(dir))
	for _, e := range all {
		if _, err := e.Info(); err != nil {
			return 0, err
		}
	}
	return len(all), err
}

// upload does what a careful program does: the file has its name when all of it is on
// the disk.
func (d localRival) upload(_ context.Context, key string, data []byte) error {
	f, err := os.CreateTemp(string(d), "bare-")
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{f}, struct{ io.Reader }{bytes.NewReader(data)})
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), d.at(key))
}

func (d localRival) readAt(_ context.Context, key string, off int64, buf []byte) error {
	f, err := os.Open(d.at(key))
	if err != nil {
		return err
	}
	_, err = f.ReadAt(buf, off)
	return errors.Join(err, f.Close())
}
