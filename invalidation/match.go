package invalidation

import "strings"

// Touch is one place of a mount that a record concerns: what follows the mount's
// root in the domain, without a leading slash, "" for the root itself.
type Touch struct {
	Rel       string
	Recursive bool
}

// Touches returns the places of a mount with the given root key that r concerns,
// at most two: those of Key and of Key2. A change of everything below a directory
// at or above the root concerns the whole mount.
func (r Record) Touches(root string) []Touch {
	if r.Kind == KindAll {
		return []Touch{{Recursive: true}}
	}
	recursive := r.Recursive || r.Kind == KindSubtree
	var out []Touch
	for _, key := range [...]string{r.Key, r.Key2} {
		if key == "" {
			continue
		}
		if rel, ok := Matches(root, key, recursive); ok {
			out = append(out, Touch{Rel: rel, Recursive: recursive})
		}
	}
	return out
}

// Matches reports whether a record about key (and all below it if recursive)
// concerns a mount whose root has the domain key root, and returns what follows
// the root in key: "" for the root itself. For a recursive change at or above
// the root it returns "" too: the whole mount is concerned.
func Matches(root, key string, recursive bool) (rel string, ok bool) {
	switch {
	case root == "/" || root == "":
		return strings.TrimPrefix(key, "/"), true
	case key == root:
		return "", true
	case len(key) > len(root) && key[:len(root)] == root && key[len(root)] == '/':
		return key[len(root)+1:], true
	case recursive && (key == "/" || key == "" || (len(root) > len(key) && root[:len(key)] == key && root[len(key)] == '/')):
		return "", true
	}
	return "", false
}
