"""Who looks at the pictures: the portrait world's judge, and one for photographs."""
