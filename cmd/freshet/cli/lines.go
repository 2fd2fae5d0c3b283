package cli

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/rpc"
)

func asError(err error) error { return rpc.ErrorOf(err) }

// headLines writes the first n lines.
func headLines(w io.Writer, r *client.Reader, n int) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for range n {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			if _, werr := w.Write(line); werr != nil {
				return werr
			}
			line, err = in.ReadSlice('\n')
		}
		if _, werr := w.Write(line); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tailWindow bounds how far back tailLines looks, in bytes: a file of one huge
// line must not be held in memory.
const tailWindow = 16 << 20

// tailLines writes the last n lines, or what of them lies in the last tailWindow
// bytes.
func tailLines(w io.Writer, r *client.Reader, n int) error {
	size := r.Info().Length
	k := min(size, tailWindow)
	r.Narrow(size-k, k)
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	start := len(b)
	for i := end; n > 0 && i >= 0; n-- {
		i = bytes.LastIndexByte(b[:i], '\n')
		start = i + 1
	}
	_, err = w.Write(b[start:])
	return err
}
