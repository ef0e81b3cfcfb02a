"""Files that other libraries read: those of microscopes through bioio, slides through OpenSlide."""
