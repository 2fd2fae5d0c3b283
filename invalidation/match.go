package invalidation

import "strings"

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
