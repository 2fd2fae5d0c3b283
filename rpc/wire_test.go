package rpc_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

// setAll sets every field of a message, and two of what is repeated.
func setAll(m protoreflect.Message) {
	texts := map[protoreflect.Name]string{
		"kind": "file", "fingerprint": "s3:1:a;;none", "etag": `"x"`, "level": "interval", "interval": "1m30s",
	}
	if m.Descriptor().Name() == "ErrorDetail" {
		texts["kind"] = "not_exist"
	}
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		value := func() protoreflect.Value {
			switch f.Kind() { //nolint:exhaustive // those that occur
			case protoreflect.StringKind:
				if s, ok := texts[f.Name()]; ok {
					return protoreflect.ValueOfString(s)
				}
				return protoreflect.ValueOfString("/" + string(f.Name()))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(int32(f.Number()) + 300)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(f.Number()) + 300)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(int64(f.Number()) + 300)
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(uint64(f.Number()) + 300)
			}
			panic(fmt.Sprintf("a field of kind %v", f.Kind()))
		}
		switch {
		case f.IsList() && f.Message() != nil:
			list := m.Mutable(f).List()
			for range 2 {
				v := list.NewElement()
				setAll(v.Message())
				list.Append(v)
			}
		case f.Message() != nil:
			setAll(m.Mutable(f).Message())
		default:
			m.Set(f, value())
		}
	}
}

// unset returns the first field below m that is not set.
func unset(m protoreflect.Message) string {
	for i := range m.Descriptor().Fields().Len() {
		f := m.Descriptor().Fields().Get(i)
		if !m.Has(f) {
			return string(f.FullName())
		}
		var inner []protoreflect.Message
		switch {
		case f.IsList() && f.Message() != nil:
			for k := range m.Get(f).List().Len() {
				inner = append(inner, m.Get(f).List().Get(k).Message())
			}
		case f.Message() != nil:
			inner = append(inner, m.Get(f).Message())
		}
		for _, one := range inner {
			if name := unset(one); name != "" {
				return name
			}
		}
	}
	return ""
}

// agree holds an answer to its message: what both read of b is the same, and what
// both write of that is too.
func agree(t *testing.T, d *rpc.Direct, b []byte) proto.Message {
	t.Helper()
	m := d.Message()
	err := proto.Unmarshal(b, m)
	var want any
	if err == nil {
		want, err = d.Reference(m)
	}
	got, gotErr := d.Read(b)
	if (err == nil) != (gotErr == nil) {
		t.Fatalf("%s: read with error %v; by its message: %v", d.Name, gotErr, err)
	}
	if err != nil {
		return nil
	}
	if g, w := d.ToMessage(got), d.ToMessage(want); !proto.Equal(g, w) {
		t.Fatalf("%s: read\n%v\nby its message\n%v", d.Name, g, w)
	}
	whole := d.ToMessage(want)
	if _, err := proto.Marshal(whole); err != nil {
		if _, err := d.Write(want); err == nil {
			t.Fatalf("%s: written, though its message can't be: %v", d.Name, whole)
		}
		return nil
	}
	written, err := d.Write(want)
	if err != nil {
		t.Fatalf("%s: %v", d.Name, err)
	}
	m = d.Message()
	if err := proto.Unmarshal(written, m); err != nil {
		t.Fatalf("%s: what was written can't be read: %v", d.Name, err)
	}
	if !proto.Equal(m, whole) || len(m.ProtoReflect().GetUnknown()) > 0 {
		t.Fatalf("%s: written\n%v\nby its message\n%v", d.Name, m, whole)
	}
	return m
}

func seeds(tb testing.TB, d *rpc.Direct) [][]byte {
	tb.Helper()
	var all [][]byte
	add := func(m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, b, append(b, b...)) // twice: the second lies over the first
	}
	full := d.Message()
	setAll(full.ProtoReflect())
	add(full)
	add(&freshetv1.StatResponse{Entry: &freshetv1.Entry{Path: "/a", Fingerprint: "-", Length: -1}})
	add(&freshetv1.StatResponse{Entry: &freshetv1.Entry{Kind: "directory", Freshness: &freshetv1.Freshness{}}})
	add(&freshetv1.BatchStatResponse{Results: []*freshetv1.StatResult{{Entry: &freshetv1.Entry{Path: "/a"}}, {Message: "x"}}})
	return append(all, nil, []byte{0x0a, 0x02, 0x0a, 0x00}, []byte("\x0a\x03\x0a\x01\xff"), []byte{0xfb, 0x7d, 0x01, 0xfc, 0x7d})
}

// Every field of the messages is written: a new one must be added to the answers
// that write themselves.
func TestDirectAnswersHaveAllFields(t *testing.T) {
	t.Parallel()
	for _, d := range rpc.DirectAnswers() {
		for _, b := range seeds(t, &d) {
			agree(t, &d, b)
		}
		full := d.Message()
		setAll(full.ProtoReflect())
		if d.Name == "batch" { // an entry or an error
			full = &freshetv1.BatchStatResponse{Results: []*freshetv1.StatResult{{Entry: new(freshetv1.Entry)}}}
			setAll(full.(*freshetv1.BatchStatResponse).GetResults()[0].GetEntry().ProtoReflect()) //nolint:forcetypeassert // made above
		}
		b, err := proto.Marshal(full)
		if err != nil {
			t.Fatal(err)
		}
		m := agree(t, &d, b)
		if m == nil {
			t.Fatalf("%s: a full message can't be read", d.Name)
		}
		if d.Name == "stat" {
			if name := unset(m.ProtoReflect()); name != "" {
				t.Errorf("%s: %s is not written", d.Name, name)
			}
		}
	}
}

// FuzzDirectAnswers reads and writes answers in both ways.
func FuzzDirectAnswers(f *testing.F) {
	answers := rpc.DirectAnswers()
	for i := range answers {
		for _, b := range seeds(f, &answers[i]) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for i := range answers {
			agree(t, &answers[i], b)
		}
	})
}
