package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) fsLs() *cobra.Command {
	var f readFlags
	var recursive bool
	var prefix, startAfter string
	var limit int64
	c := &cobra.Command{
		Use: "ls PATH", Short: "List a directory", Args: cobra.ExactArgs(1),
		Example: "  freshet fs ls /sales\n" +
			"  freshet fs ls /sales --prefix part-0 --limit 100\n" +
			"  freshet fs ls -R /sales --prefix 2026/07/        # paths relative to /sales\n" +
			"  freshet fs ls /sales --start-after part-0999.parquet",
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--limit can't be negative")
			}
			return a.withUnbounded(cmd, func(ctx context.Context, s *session) error {
				return a.list(ctx, s, limit, &freshetv1.ListRequest{
					Path: args[0], Recursive: recursive, SyncInterval: f.interval, After: f.after, Prefix: prefix, StartAfter: startAfter,
				})
			})
		},
	}
	f.register(c)
	c.Flags().BoolVarP(&recursive, "recursive", "R", false, "everything below the path")
	c.Flags().StringVar(&prefix, "prefix", "", "only names that begin with it; with --recursive paths relative to PATH")
	c.Flags().StringVar(&startAfter, "start-after", "", "begin behind this name; with --recursive a path relative to PATH")
	c.Flags().Int64Var(&limit, "limit", 0, "at most so many entries; 0 is all")
	return c
}

// list writes entries as they come, so that a huge directory needs no memory here,
// whatever the form of the output.
func (a *app) list(ctx context.Context, s *session, limit int64, req *freshetv1.ListRequest) error {
	if limit > 0 && limit < freshet.MaxListPage {
		req.PageSize = int32(limit)
	}
	out := &entryWriter{app: a}
	var last string
	cut := false
	err := s.eachPage(ctx, req, func(entries []*freshetv1.Entry) (bool, error) {
		if limit > 0 && out.count+int64(len(entries)) > limit {
			entries, cut = entries[:limit-out.count], true
		}
		if len(entries) > 0 {
			last = entries[len(entries)-1].GetPath()
		}
		if err := out.write(entries); err != nil {
			return false, err
		}
		full := limit > 0 && out.count == limit
		return !full, nil
	})
	if err != nil && (out.count == 0 || a.output != "table") {
		return err
	}
	err = errors.Join(out.close(), err)
	if cut || (limit > 0 && out.count == limit) { // after the last byte of the document, which may go to the same terminal
		a.note("stopped after %s; there may be more: --start-after %s", countText(out.count, "entry", "entries"), safe(relative(req.GetPath(), last)))
	}
	return err
}

// relative returns the part of p below dir.
func relative(dir, p string) string {
	return strings.TrimPrefix(strings.TrimPrefix(p, strings.TrimSuffix(dir, "/")), "/")
}

// eachPage calls f with the pages of a listing until there is none, or f returns
// false. A stream that breaks is begun again behind the last page.
func (s *session) eachPage(ctx context.Context, req *freshetv1.ListRequest, f func(entries []*freshetv1.Entry) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a stream that is not read to its end
	const tries = 5
	for failures := 0; ; failures++ {
		stream, err := s.ns.ListStream(ctx, &freshetv1.ListStreamRequest{List: req})
		for err == nil {
			var m *freshetv1.ListStreamResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			r := m.GetPage()
			failures = 0
			req.PageToken = r.GetNextPageToken()
			if more, err := f(r.GetEntries()); err != nil || !more || req.GetPageToken() == "" {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if failures == tries || ctx.Err() != nil || !freshet.IsKind(rpc.ErrorOf(err), freshet.KindUnavailable, freshet.KindNotLeader) {
			return err
		}
	}
}

// entryWriter writes one document, or table, entry by entry.
type entryWriter struct {
	*app

	count int64
	begun bool
}

func (w *entryWriter) write(entries []*freshetv1.Entry) error {
	first := !w.begun
	w.begun = true
	if w.output == "table" {
		w.count += int64(len(entries))
		return w.draw(func(t *table) { entriesTable(t, entries, first) })
	}
	var buf bytes.Buffer
	for _, e := range entries {
		b, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(e)
		if err == nil && w.output == "yaml" {
			err = w.yaml(&buf, b)
		} else if err == nil {
			err = w.json(&buf, b)
		}
		if err != nil {
			return freshet.Errorf(freshet.KindInternal, "print", "", "%w", err)
		}
		w.count++
	}
	_, err := w.Out.Write(buf.Bytes())
	return err
}

// json writes one element of the list, in the form that the whole document has.
func (w *entryWriter) json(buf *bytes.Buffer, b []byte) error {
	if w.count == 0 {
		buf.WriteString("{\n  \"entries\": [\n    ")
	} else {
		buf.WriteString(",\n    ")
	}
	return json.Indent(buf, b, "    ", "  ")
}

func (w *entryWriter) yaml(buf *bytes.Buffer, b []byte) error {
	doc := append(append([]byte(`{"entries":[`), b...), "]}"...)
	y, err := jsonToYAML(doc)
	if err != nil {
		return err
	}
	if w.count > 0 {
		_, y, _ = bytes.Cut(y, []byte("\n"))
	}
	buf.Write(y)
	return nil
}

// close ends the document.
func (w *entryWriter) close() error {
	switch {
	case w.output == "table":
		return nil
	case w.count == 0:
		return w.print(&freshetv1.ListResponse{}, nil)
	}
	end := "\n  ],\n  \"nextPageToken\": \"\"\n}\n"
	if w.output == "yaml" {
		end = "nextPageToken: \"\"\n"
	}
	_, err := io.WriteString(w.Out, end)
	return err
}
