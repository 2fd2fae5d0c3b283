package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/test/e2e"
)

// reader reads files of all writers in one way.
type reader struct {
	l     *lake
	r     *e2e.Region
	name  string
	way   func(ctx context.Context, d *reader, v *view) error
	files []*writer
	rand  *rand.Rand
	tally *tally
}

// ways are how files are read. They return an error that says what is wrong, if
// anything is.
func ways() map[string]func(ctx context.Context, d *reader, v *view) error {
	return map[string]func(ctx context.Context, d *reader, v *view) error{
		"stream": func(ctx context.Context, d *reader, v *view) error {
			return d.stream(ctx, v, d.l.remote[d.r].Files, client.Whole())
		},
		"no_cache": func(ctx context.Context, d *reader, v *view) error {
			opts := client.Whole()
			opts.Read = freshet.ReadNoCache
			return d.stream(ctx, v, d.l.remote[d.r].Files, opts)
		},
		"range": func(ctx context.Context, d *reader, v *view) error {
			opts := client.ReadOptions{Offset: d.page(600_000), Length: 4096 + d.rand.Int64N(200_000)}
			return d.stream(ctx, v, d.l.remote[d.r].Files, opts)
		},
		"local": func(ctx context.Context, d *reader, v *view) error {
			return d.stream(ctx, v, d.r.S.Files, client.Whole())
		},
		"vector": func(ctx context.Context, d *reader, v *view) error { return d.vector(ctx, v) },
		"http":   func(ctx context.Context, d *reader, v *view) error { return d.http(ctx, v) },
	}
}

// page returns a place in a file of about size bytes.
func (d *reader) page(size int64) int64 { return d.rand.Int64N(size/e2e.PageSize) * e2e.PageSize }

func (d *reader) run(ctx context.Context) error {
	for ctx.Err() == nil {
		f := d.files[d.rand.IntN(len(d.files))].some(d.rand.Int())
		if f == nil {
			continue
		}
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		v := f.look(d.r)
		v.by = d.name
		err := d.way(one, d, &v)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

// failed judges an error of the product.
func (d *reader) failed(v *view, err error) error {
	d.tally.add(d.name, err)
	return v.judgeError(err)
}

// stream reads from the first to the last byte of a range.
func (d *reader) stream(ctx context.Context, v *view, files *client.Client, opts client.ReadOptions) error {
	f, err := files.Open(ctx, v.path, opts)
	if opts.Offset > 0 && freshet.IsKind(err, freshet.KindInvalid) {
		return nil // the file is shorter
	}
	if err != nil {
		return d.failed(v, err)
	}
	data, err := io.ReadAll(f)
	length := f.Info().Length
	if err := errors.Join(err, f.Close()); err != nil {
		if opts.Offset > 0 && freshet.IsKind(err, freshet.KindInvalid) {
			return nil // it is shorter now, and nothing was delivered
		}
		return d.failed(v, err)
	}
	d.tally.add(d.name, nil)
	want := max(0, length-opts.Offset)
	if opts.Length >= 0 {
		want = min(want, opts.Length)
	}
	if int64(len(data)) != want {
		return fmt.Errorf("%s: %d bytes from %d of %d, not %d", v.path, len(data), opts.Offset, length, want)
	}
	if want < e2e.PageSize {
		return nil // the range is behind the end, or proves nothing
	}
	return v.judge(opts.Offset, data, length)
}

// vector reads several ranges at once, at one version.
func (d *reader) vector(ctx context.Context, v *view) error {
	f, err := d.r.S.Files.OpenFile(ctx, v.path, client.ReadOptions{})
	if err != nil {
		return d.failed(v, err)
	}
	length := f.Info().Length
	ranges := make([]client.Range, 0, 4)
	for range 4 {
		off := d.page(max(e2e.PageSize, length))
		ranges = append(ranges, client.Range{Offset: off, Into: make([]byte, min(length-off, 8192))})
	}
	if err := f.ReadRanges(ctx, ranges); err != nil {
		return d.failed(v, err)
	}
	d.tally.add(d.name, nil)
	one := uint64(0)
	for _, r := range ranges {
		if len(r.Into) < e2e.PageSize {
			continue
		}
		if err := v.judge(r.Offset, r.Into, length); err != nil {
			return err
		}
		got, err := e2e.VersionOf(v.f.id, r.Offset, r.Into)
		if err != nil || one != 0 && got != one {
			return fmt.Errorf("%s: versions %d and %d in one vectored read: %w", v.path, one, got, err)
		}
		one = got
	}
	return nil
}

// http asks any node of the region, for a range or for all.
func (d *reader) http(ctx context.Context, v *view) error {
	node := d.r.NodeHTTP[d.rand.IntN(len(d.r.NodeHTTP))]
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node+"/v1/data"+string(v.path), nil)
	if err != nil {
		return err
	}
	off := int64(0)
	if d.rand.IntN(2) == 0 {
		off = d.page(300_000)
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+65535))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return d.failed(v, freshet.Errorf(freshet.KindUnavailable, "get", v.path, "%w", err))
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close() // read to its end
	switch {
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		d.tally.add(d.name, nil) // the file is shorter
		return nil
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
		return d.failed(v, httpError(v.path, resp.StatusCode, data))
	case err != nil: // cut, because the version went away or the node did
		return d.failed(v, freshet.Errorf(freshet.KindUnavailable, "get", v.path, "%w", err))
	}
	d.tally.add(d.name, nil)
	length := int64(-1)
	if resp.StatusCode == http.StatusOK {
		length, off = int64(len(data)), 0
	}
	if len(data) < e2e.PageSize {
		return nil
	}
	return v.judge(off, data, length)
}

// httpError makes an error of an answer.
func httpError(p freshet.Path, status int, body []byte) error {
	var e struct{ Kind, Message string }
	if err := json.Unmarshal(body, &e); err != nil {
		return freshet.Errorf(freshet.KindInternal, "http", p, "status %d: %.200q", status, body)
	}
	for _, k := range freshet.Kinds() {
		if k.Name == e.Kind {
			return freshet.Errorf(k.Kind, "http", p, "status %d: %s", status, e.Message)
		}
	}
	return freshet.Errorf(freshet.KindInternal, "http", p, "status %d: %.200q", status, body)
}
