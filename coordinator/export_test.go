package coordinator

import "github.com/freshet-io/freshet"

// ParsePageToken is parsePageToken.
func ParsePageToken(q freshet.ListQuery) (string, error) { return parsePageToken(q) }

// PageToken is pageToken.
func PageToken(q freshet.ListQuery, last freshet.Path) string { return pageToken(q, last) }
