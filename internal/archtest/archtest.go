// Package archtest owns the import map of the project: which package may import
// which other one of ours, which packages must stay pure, and which third-party
// modules only one place may know. Its test holds the tree to the map.
//
// It never looks at test files: tests may import what they like.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
)

// module is the path of the product's module.
const module = "github.com/freshet-io/freshet"

// root is how the map names the root package.
const root = "freshet"

// rule says what one package, or one tree of packages, may do.
type rule struct {
	// imports lists packages of ours, relative to the module. "x/..." means x
	// and everything below it; "..." means everything.
	imports []string
	// pure packages decide and never act: no clock, goroutine, socket, file,
	// log, metric or random number, so that equal input gives equal output.
	pure bool
}

// edge says that third-party packages whose paths begin with prefix are imported
// only by the packages listed (patterns as in rule.imports).
type edge struct {
	prefix string
	only   []string
}

// architecture is the whole map.
type architecture struct {
	rules map[string]rule // by package or "tree/..."; the longest match counts
	edges []edge
}

// file is what the check needs to know of one source file.
type file struct {
	name    string
	pkg     string // as the map names it
	imports []string
	impure  []string // what a pure package must not contain, with positions
}

// check returns a message for each breach of the map in the module at fsys.
func (a architecture) check(fsys fs.FS) ([]string, error) {
	files, err := readTree(fsys)
	if err != nil {
		return nil, err
	}
	var breaches []string
	unknown := map[string]bool{}
	for _, f := range files {
		r, ok := a.ruleFor(f.pkg)
		if !ok {
			if !unknown[f.pkg] {
				unknown[f.pkg] = true
				breaches = append(breaches, fmt.Sprintf(
					"package %s is not in the import map: add a row to internal/archtest/map.go that says what it may import, and to docs/architecture.md what it owns", f.pkg))
			}
			continue
		}
		breaches = append(breaches, a.checkFile(f, r)...)
	}
	return breaches, nil
}

// checkFile returns the breaches of one file whose package follows r.
func (a architecture) checkFile(f file, r rule) []string {
	var breaches []string
	for _, imp := range f.imports {
		if own, ok := ownPackage(imp); ok {
			if !matchesAny(r.imports, own) {
				breaches = append(breaches, fmt.Sprintf("%s: package %s may not import %s (it may import: %s); if it must, change internal/archtest/map.go and say why",
					f.name, f.pkg, own, strings.Join(r.imports, ", ")))
			}
			continue
		}
		for _, e := range a.edges {
			if under(imp, e.prefix) && !matchesAny(e.only, f.pkg) {
				breaches = append(breaches, fmt.Sprintf("%s: package %s may not import %s; only %s may",
					f.name, f.pkg, imp, strings.Join(e.only, ", ")))
			}
		}
		if r.pure && slices.ContainsFunc(impureImports, func(p string) bool { return under(imp, p) }) {
			breaches = append(breaches, fmt.Sprintf("%s: package %s is pure and may not import %s", f.name, f.pkg, imp))
		}
	}
	if r.pure {
		for _, what := range f.impure {
			breaches = append(breaches, fmt.Sprintf("%s: package %s is pure: %s; take it as a value", f.name, f.pkg, what))
		}
	}
	return breaches
}

// ruleFor returns the rule of a package: its own, or that of the smallest tree
// around it.
func (a architecture) ruleFor(pkg string) (rule, bool) {
	if r, ok := a.rules[pkg]; ok {
		return r, true
	}
	for dir := pkg; ; dir = path.Dir(dir) {
		if r, ok := a.rules[dir+"/..."]; ok {
			return r, true
		}
		if !strings.Contains(dir, "/") {
			return rule{}, false
		}
	}
}

// reaches reports whether the map lets code of the tree from import, directly or
// through others, a package of the tree to.
func (a architecture) reaches(from, to string) bool {
	seen := map[string]bool{}
	queue := []string{from}
	for len(queue) > 0 {
		tree := queue[0]
		queue = queue[1:]
		for _, name := range slices.Sorted(maps.Keys(a.rules)) {
			if seen[name] || !overlap(tree, name) {
				continue
			}
			seen[name] = true
			for _, imp := range a.rules[name].imports {
				if overlap(imp, to) {
					return true
				}
				queue = append(queue, imp)
			}
		}
	}
	return false
}

// overlap reports whether the trees or packages that two patterns name have a
// package in common.
func overlap(a, b string) bool {
	return matches(a, strings.TrimSuffix(b, "/...")) || matches(b, strings.TrimSuffix(a, "/..."))
}

// matches reports whether a pattern of the map covers pkg.
func matches(pattern, pkg string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return under(pkg, tree)
	}
	return pattern == pkg
}

func matchesAny(patterns []string, pkg string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, pkg) })
}

// under reports whether p is tree or lies below it.
func under(p, tree string) bool {
	return p == tree || strings.HasPrefix(p, tree+"/")
}

// ownPackage returns the name by which the map knows an import path of ours.
func ownPackage(imp string) (string, bool) {
	if imp == module {
		return root, true
	}
	return strings.CutPrefix(imp, module+"/")
}

// readTree reads the source files of the module at fsys, tests excepted, in the
// order of their names. Modules of their own within the tree are not part of it.
func readTree(fsys fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if ignored(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := readFile(fsys, name)
		if err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// ignored reports whether the go command would not look for packages of this
// module in dir.
func ignored(fsys fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	base := path.Base(dir)
	if strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") || base == "testdata" || base == "vendor" {
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

// readFile parses one file.
func readFile(fsys fs.FS, name string) (file, error) {
	src, err := fs.ReadFile(fsys, name)
	if err != nil {
		return file{}, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
	if err != nil {
		return file{}, err
	}
	f := file{name: name, pkg: path.Dir(name)}
	if f.pkg == "." {
		f.pkg = root
	}
	timeName := ""
	for _, spec := range parsed.Imports {
		imp, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return file{}, fmt.Errorf("%s: import %s: %w", name, spec.Path.Value, err)
		}
		f.imports = append(f.imports, imp)
		if imp == "time" {
			timeName = "time"
			if spec.Name != nil {
				timeName = spec.Name.Name
			}
		}
	}
	f.impure = impurities(fset, parsed, timeName)
	return f, nil
}

// impurities lists the goroutines and readings of the clock in a file.
func impurities(fset *token.FileSet, parsed *ast.File, timeName string) []string {
	var found []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			found = append(found, fmt.Sprintf("line %d starts a goroutine", fset.Position(n.Pos()).Line))
		case *ast.SelectorExpr:
			pkg, ok := n.X.(*ast.Ident)
			if ok && timeName != "" && pkg.Name == timeName && slices.Contains(clockReaders, n.Sel.Name) {
				found = append(found, fmt.Sprintf("line %d uses time.%s", fset.Position(n.Pos()).Line, n.Sel.Name))
			}
		}
		return true
	})
	return found
}

// clockReaders are the functions of package time that read the clock or wait.
var clockReaders = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// impureImports are trees of packages whose use makes a package act, or answer
// differently to equal questions.
var impureImports = []string{
	"net", "os", "syscall", "log", "math/rand", "crypto/rand", "hash/maphash",
	"golang.org/x/sys", "github.com/prometheus", "google.golang.org/grpc",
}
