/** Bounds on what a registry or an archive may hand us. */

/** An index, manifest or config; distribution clients stop at 4 MiB, containerd at 8 MiB. */
export const DOCUMENT_BYTES_MAX = 8 * 1024 * 1024;
/** Layers of one image; overlayfs itself stops far below. */
export const LAYERS_MAX = 1024;
/** Entries of one index. */
export const INDEX_ENTRIES_MAX = 4096;
/** Annotations of one descriptor or document. */
export const ANNOTATIONS_MAX = 1024;
/** Characters of a media type (RFC 6838, section 4.2: 127 on each side of the slash). */
export const MEDIA_TYPE_CHARS_MAX = 255;
/** A blob's size in bytes: the limit of sense, 4 TiB. */
export const BLOB_BYTES_MAX = 4 * 1024 ** 4;
/** Characters of a reference's text as given by a user or a label. */
export const REFERENCE_CHARS_MAX = 1024;
/** Characters of domain and repository. Source: distribution/reference, NameTotalLengthMax. */
export const NAME_CHARS_MAX = 255;
/** An index may point to an index; deeper nesting than this is refused. */
export const INDEX_DEPTH_MAX = 3;
