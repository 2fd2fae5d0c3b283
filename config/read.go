package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Read reads and checks the syntax of a file; see Validate* for its meaning.
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
	tree, err := parser.ParseBytes(b, 0)
	if err != nil {
		return nil, located(name, err)
	}
	if tk := firstAlias(tree); tk != nil {
		return nil, at(name, tk, "anchors and aliases are not accepted")
	}
	if len(tree.Docs) > 1 {
		return nil, freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: more than one YAML document", name)
	}
	f := &File{tree: tree}
	err = yaml.NewDecoder(bytes.NewReader(b), yaml.Strict(), yaml.DisallowUnknownField()).Decode(f)
	if err != nil && !errors.Is(err, io.EOF) { // an empty file is an empty File
		return nil, located(name, err)
	}
	return f, nil
}

// located adds file, line and column to an error of the YAML library.
func located(name string, err error) error {
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) && unknown.Token != nil {
		key := unknown.Token.Value
		return at(name, unknown.Token, fmt.Sprintf("unknown key %q%s", key, ufs.DidYouMean(key, knownKeys(reflect.TypeFor[File](), nil))))
	}
	var located yaml.Error
	if errors.As(err, &located) && located.GetToken() != nil {
		return at(name, located.GetToken(), located.GetMessage())
	}
	return freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s: %w", name, err)
}

func at(name string, tk *token.Token, message string) error {
	line, column := 1, 1
	if tk.Position != nil {
		line, column = tk.Position.Line, tk.Position.Column
	}
	return freshet.Errorf(freshet.KindInvalid, "read configuration", "", "%s:%d:%d: %s", name, line, column, message)
}

// firstAlias finds an anchor or alias: they make small files that expand without
// bound.
func firstAlias(f *ast.File) *token.Token {
	v := &aliasFinder{}
	for _, d := range f.Docs {
		if d.Body != nil {
			ast.Walk(v, d.Body)
		}
	}
	return v.found
}

type aliasFinder struct{ found *token.Token }

// Visit implements ast.Visitor.
func (v *aliasFinder) Visit(n ast.Node) ast.Visitor {
	if n == nil || v.found != nil {
		return nil
	}
	switch n.Type() { //nolint:exhaustive // only these two matter
	case ast.AnchorType, ast.AliasType:
		v.found = n.GetToken()
		return nil
	}
	return v
}

// knownKeys collects the keys of a configuration type and of all below it.
func knownKeys(t reflect.Type, into []string) []string {
	switch t.Kind() { //nolint:exhaustive // other kinds have no keys
	case reflect.Pointer, reflect.Slice:
		return knownKeys(t.Elem(), into)
	case reflect.Struct:
		for field := range t.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if name != "" {
				into = knownKeys(field.Type, append(into, name))
			}
		}
	}
	return into
}
