//go:build !linux

package tier

import (
	"errors"
	"os"
)

func (d *disk) readCached(*os.File, []byte, int64) bool { return false }

func inMemory(string) bool { return false }

func allocate(*os.File, int64) error { return errors.ErrUnsupported }
