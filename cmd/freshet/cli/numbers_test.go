package cli_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// printed finds what commands print as JSON besides messages.
type printed struct {
	*testing.T
	files   *token.FileSet
	structs map[string]bool // by the name of the type, as it is written in this package
}

// TestIntegersAreStrings holds the JSON of all commands to that of messages, which is that
// of REST: integers of 64 bits are strings. What is printed and is no message is a struct
// with tags.
func TestIntegersAreStrings(t *testing.T) {
	t.Parallel()
	p := &printed{T: t, files: token.NewFileSet(), structs: map[string]bool{}}
	dirs := map[string]string{".": "", "../load": "load.", "../../../internal/version": "version."}
	parsed := map[string][]*ast.File{}
	for dir, pkg := range dirs {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(names) == 0 {
			t.Fatal(dir, err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(p.files, name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			parsed[dir] = append(parsed[dir], f)
			ast.Inspect(f, func(n ast.Node) bool {
				if s, ok := n.(*ast.TypeSpec); ok {
					p.structs[pkg+s.Name.Name] = true
				}
				return true
			})
		}
	}
	tagged := 0
	for dir, all := range parsed {
		for _, f := range all {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.StructType:
					tagged += p.check(dirs[dir], n)
				case *ast.CallExpr:
					p.checkCall(n)
				}
				return true
			})
		}
	}
	if tagged < 50 {
		t.Errorf("only %d fields with a tag were found", tagged)
	}
}

// check returns how many fields have a tag for JSON.
func (p *printed) check(pkg string, s *ast.StructType) (tagged int) {
	for _, f := range s.Fields.List {
		if f.Tag == nil {
			continue
		}
		text, err := strconv.Unquote(f.Tag.Value)
		if err != nil {
			p.Fatal(err)
		}
		tag, ok := reflect.StructTag(text).Lookup("json")
		if !ok {
			continue
		}
		tagged++
		_, opts, _ := strings.Cut(tag, ",")
		if !p.allowed(pkg, f.Type, strings.Contains(opts, "string")) {
			p.Errorf("%s: a field whose tag is %q has a type that this test does not know, or is an integer of 64 bits that is no string in JSON: add \",string\" to its tag", p.files.Position(f.Pos()), tag)
		}
	}
	return tagged
}

// allowed reports whether a field keeps the rule.
func (p *printed) allowed(pkg string, e ast.Expr, quoted bool) bool {
	switch e := e.(type) {
	case *ast.StarExpr:
		return p.allowed(pkg, e.X, quoted)
	case *ast.ArrayType:
		return p.allowed(pkg, e.Elt, false) // a tag does not reach elements
	case *ast.MapType:
		return p.allowed(pkg, e.Value, false)
	case *ast.Ident:
		switch e.Name {
		case "int64", "uint64":
			return quoted
		case "string", "bool", "int", "uint32", "float64":
			return !quoted
		}
		return p.structs[pkg+e.Name]
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		if !ok {
			return false
		}
		name := x.Name + "." + e.Sel.Name
		return name == "time.Time" || name == "freshet.Path" || p.structs[name]
	}
	return false
}

// checkCall finds who writes JSON past print and printValue.
func (p *printed) checkCall(c *ast.CallExpr) {
	f, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	x, ok := f.X.(*ast.Ident)
	if !ok || x.Name != "json" || (f.Sel.Name != "Marshal" && f.Sel.Name != "MarshalIndent" && f.Sel.Name != "NewEncoder") {
		return
	}
	if at := p.files.Position(c.Pos()); at.Filename != "output.go" {
		p.Errorf("%s: JSON is written by print and printValue only", at)
	}
}
