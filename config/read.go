package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Read reads and checks the syntax of a file; see Validate for its meaning.
func Read(name string) (*File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, freshet.Errorf(openKind(err), "read configuration", "", "%w", err)
	}
	defer func() { _ = f.Close() }() // read only
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: %w", name, err)
	}
	return Parse(name, b)
}

func openKind(err error) freshet.Kind {
	if errors.Is(err, os.ErrPermission) {
		return freshet.KindPermission
	}
	return freshet.KindInvalid
}

// Parse reads a file's bytes; name is for messages. A mistake is KindInvalid and
// says file, line, column and, for an unknown key, the nearest known one.
func Parse(name string, b []byte) (*File, error) {
	if len(b) > maxFile {
		return nil, freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: larger than %d bytes", name, maxFile)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return &File{}, nil // an empty file is an empty File
	case err != nil:
		return nil, syntax(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: more than one YAML document", name)
	}
	tree := doc.Content[0]
	if err := check(name, tree, reflect.TypeFor[File]()); err != nil {
		return nil, err
	}
	f := &File{tree: tree}
	if err := tree.Decode(f); err != nil {
		return nil, syntax(name, err)
	}
	return f, nil
}

// syntax moves the line of a message of the YAML library, which gives no other
// access to it, to the front.
func syntax(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if _, rest, ok := strings.Cut(text, "line "); ok {
		if line, message, ok := strings.Cut(rest, ": "); ok {
			return freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s:%s: %s", name, line, message)
		}
	}
	return freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: %s", name, text)
}

func at(name string, n *yaml.Node, format string, args ...any) error {
	return freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s:%d:%d: %s", name, n.Line, n.Column, fmt.Sprintf(format, args...))
}

// check compares a node with the type that it is to become: unknown and repeated
// keys, lists and mappings where there should be none. Anchors and aliases are
// refused: they make small files that expand without bound.
func check(name string, n *yaml.Node, t reflect.Type) error {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return at(name, n, "anchors and aliases are not accepted")
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	switch t.Kind() { //nolint:exhaustive // all others are scalars
	case reflect.Struct:
		return checkMapping(name, n, func(key *yaml.Node) (reflect.Type, error) {
			for field := range t.Fields() {
				if keyOf(field) == key.Value {
					return field.Type, nil
				}
			}
			return nil, at(name, key, "unknown key %q%s", key.Value, ufs.DidYouMean(key.Value, knownKeys(reflect.TypeFor[File](), nil)))
		})
	case reflect.Map:
		return checkMapping(name, n, func(*yaml.Node) (reflect.Type, error) { return t.Elem(), nil })
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return at(name, n, "a list is expected here")
		}
		for _, item := range n.Content {
			if err := check(name, item, t.Elem()); err != nil {
				return err
			}
		}
		return nil
	}
	if n.Kind != yaml.ScalarNode {
		return at(name, n, "a single value is expected here")
	}
	return nil
}

func checkMapping(name string, n *yaml.Node, typeOf func(key *yaml.Node) (reflect.Type, error)) error {
	if n.Kind != yaml.MappingNode {
		return at(name, n, "keys with values are expected here")
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := seen[key.Value]; twice {
			return at(name, key, "key %q is there twice, first in line %d", key.Value, line)
		}
		seen[key.Value] = key.Line
		t, err := typeOf(key)
		if err == nil {
			err = check(name, value, t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func keyOf(field reflect.StructField) string {
	key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	return key
}

// find returns the node of a key such as "mounts[0].path", or of the nearest key
// around it that the file has; nil if it has none of them.
func find(tree *yaml.Node, key string) *yaml.Node {
	var found *yaml.Node
	n := tree
	for part := range strings.FieldsFuncSeq(key, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if n == nil {
			break
		}
		if n = step(n, part); n != nil {
			found = n
		}
	}
	return found
}

func step(n *yaml.Node, part string) *yaml.Node {
	switch n.Kind { //nolint:exhaustive // scalars have nothing below them
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i < len(n.Content) {
			return n.Content[i]
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == part {
				return n.Content[i+1]
			}
		}
	}
	return nil
}

// knownKeys collects the keys of a configuration type and of all below it.
func knownKeys(t reflect.Type, into []string) []string {
	switch t.Kind() { //nolint:exhaustive // other kinds have no keys
	case reflect.Pointer, reflect.Slice:
		return knownKeys(t.Elem(), into)
	case reflect.Struct:
		for field := range t.Fields() {
			if name := keyOf(field); name != "" {
				into = knownKeys(field.Type, append(into, name))
			}
		}
	}
	return into
}
